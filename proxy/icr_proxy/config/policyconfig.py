"""What callers may do, as configured.

A table of keys like `config`: annotations are real objects.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from icr_proxy.config import fields as of
from icr_proxy.config import rules as consistency
from icr_proxy.config.spec import Key, Rule, check


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleConfig:
    """One rule of the policy; what is left out matches anything, what is given must all match."""

    name: Annotated[
        str,
        Key(
            of.RULE_NAME,
            "What log and refusals call a rule; the first that matches decides.",
            live=True,
        ),
    ]
    action: Annotated[
        Literal["allow", "deny"], Key(of.ALLOW_OR_DENY, "What happens on a match.", live=True)
    ]
    operations: Annotated[
        tuple[str, ...],
        Key(of.OPERATIONS, "Operations it is about, as in `v1.*`; empty is any.", live=True),
    ] = ()
    methods: Annotated[
        tuple[str, ...],
        Key(of.METHODS, "Methods it is about; GET covers HEAD; empty is any.", live=True),
    ] = ()
    paths: Annotated[
        tuple[str, ...],
        Key(of.PATH_GLOBS, "Paths it is about, as in `/v1/**`; empty is any.", live=True),
    ] = ()
    installations: Annotated[
        tuple[str, ...],
        Key(of.INSTALLATION_IDS, "Installations it is about; empty is any.", live=True),
    ] = ()
    listeners: Annotated[
        tuple[str, ...],
        Key(of.BINDS, "Listeners it is about, by their `bind`; empty is any.", live=True),
    ] = ()
    callers: Annotated[
        tuple[str, ...],
        Key(of.CALLER_NAMES, "Callers it is about, by name; empty is any.", live=True),
    ] = ()

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """What callers may do."""

    must_hold: ClassVar = (Rule(("rules",), consistency.rules_that_can_match),)

    read_only: Annotated[
        bool,
        Key(of.SWITCH, "Refuse every operation that changes state.", live=True, flag="--read-only"),
    ] = False
    mode: Annotated[
        Literal["enforce", "report"],
        Key(of.ENFORCE_OR_REPORT, "Refuse, or only log what would be refused.", live=True),
    ] = "enforce"
    default: Annotated[
        Literal["allow", "deny"],
        Key(of.ALLOW_OR_DENY, "What happens to requests that no rule matches.", live=True),
    ] = "allow"
    rules: tuple[RuleConfig, ...] = ()
    duplicate_guard: Annotated[
        float | None,
        Key(
            of.DURATION,
            "Refuse a write equal to one in flight, or of unknown outcome for so long.",
            live=True,
            example="60s",
        ),
    ] = None
    app_endpoints: Annotated[
        Literal["closed", "read"],
        Key(
            of.CLOSED_OR_READ,
            "Keep `/app` closed, or let callers read the list of installations.",
            live=True,
        ),
    ] = "closed"

    def __post_init__(self) -> None:
        check(self)
