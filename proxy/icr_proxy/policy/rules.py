"""Whether a caller may do an operation for an installation.

Rules are looked at in order and the first that matches decides; `read_only` comes before all of
them. A verdict is a value: raising the refusal, counting and logging it are the caller's. Decided
is on the decision path (see `paths`), never on the target as received.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from icr_proxy.policy import operations, paths

if TYPE_CHECKING:
    from collections.abc import Iterator

Action = Literal["allow", "deny"]
Mode = Literal["enforce", "report"]

READ_ONLY: Final = "read-only"
DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One rule: all that is given must match, and what is left empty matches anything.

    In `operations`, `*` stands for any characters (`v1.*`); in `paths`, `*` for (a part of) one
    segment and a segment `**` for any number of them, none included. `GET` covers `HEAD`.
    """

    name: str
    action: Action
    operations: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    installations: tuple[str, ...] = ()
    listeners: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()


class Subject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is decided on; `path` is a decision path, the last of them None where there is none."""

    operation: operations.Operation
    method: str
    path: str
    installation: str | None
    listener: str
    caller: str | None = None


class PolicyDecision(msgspec.Struct, frozen=True):
    """A verdict, and the rule that gave it: its name, `read-only` or `default`."""

    allowed: bool
    rule: str
    enforced: bool

    @property
    def refuses(self) -> bool:
        """Whether the request must not go on: not in report mode, where it is only said."""
        return self.enforced and not self.allowed


ALLOWED: Final = PolicyDecision(allowed=True, rule=DEFAULT, enforced=True)


class Policy:
    """Ordered rules, compiled once."""

    __slots__ = ("_default", "_read_only", "_rules", "unconditional")

    def __init__(
        self,
        *,
        read_only: bool = False,
        mode: Mode = "enforce",
        rules: tuple[PolicyRule, ...] = (),
        default: Action = "allow",
    ) -> None:
        """Raise ValueError, one line for each thing that is wrong, if a rule could never match."""
        problems = tuple(_problems(rules))
        if problems:
            raise ValueError("\n".join(problems))
        # Compared so that a word which is none of the two can only make things stricter.
        enforced = mode != "report"
        allowed = default == "allow"
        self._rules = tuple(_Compiled(rule, enforced=enforced) for rule in rules)
        self._default = PolicyDecision(allowed=allowed, rule=DEFAULT, enforced=enforced)
        self._read_only = (
            PolicyDecision(allowed=False, rule=READ_ONLY, enforced=enforced) if read_only else None
        )
        # The usual case, answered without a look at the subject.
        self.unconditional = ALLOWED if allowed and not rules and not read_only else None
        """What it says of everything, if it says the same of everything."""

    def decide(self, subject: Subject) -> PolicyDecision:
        """Ask `read_only`, then the rules in order, then the default."""
        if self.unconditional is not None:
            return self.unconditional
        if self._read_only is not None and subject.operation.changes_state:
            return self._read_only
        for rule in self._rules:
            if rule.matches(subject):
                return rule.decision
        return self._default


class _Compiled:
    """A rule with its globs worked out; None stands for "any"."""

    __slots__ = (
        "_callers",
        "_installations",
        "_listeners",
        "_methods",
        "_operations",
        "_paths",
        "decision",
    )

    def __init__(self, rule: PolicyRule, *, enforced: bool) -> None:
        # Names are a closed set, so that a glob over them is a set as well.
        named = {name for glob in rule.operations for name in names_matching(glob)}
        methods = {method.upper() for method in rule.methods}
        if "GET" in methods:
            methods.add("HEAD")  # RFC 9110, 9.3.2: the same request, less the body of the answer
        self._operations = frozenset(named) or None
        self._methods = frozenset(methods) or None
        self._installations = frozenset(rule.installations) or None
        self._listeners = frozenset(rule.listeners) or None
        self._callers = frozenset(rule.callers) or None
        pattern = "|".join(map(_path_pattern, rule.paths))
        self._paths = re.compile(pattern, re.DOTALL) if rule.paths else None
        self.decision = PolicyDecision(
            allowed=rule.action == "allow", rule=rule.name, enforced=enforced
        )

    def matches(self, subject: Subject) -> bool:
        return (
            (self._operations is None or subject.operation.name in self._operations)
            and (self._methods is None or subject.method.upper() in self._methods)
            and (self._installations is None or subject.installation in self._installations)
            and (self._listeners is None or subject.listener in self._listeners)
            and (self._callers is None or subject.caller in self._callers)
            and (self._paths is None or self._paths.fullmatch(subject.path) is not None)
        )


def names_matching(glob: str) -> set[str]:
    """Give the names of operations that a glob means."""
    pattern = re.compile(".*".join(map(re.escape, re.split(r"\*+", glob))))
    return {name for name in operations.NAMES if pattern.fullmatch(name)}


def _path_pattern(glob: str) -> str:
    return "".join(map(_segment_pattern, _normalised(glob)[1:].split("/")))


def _segment_pattern(glob: str) -> str:
    if glob == "**":
        return "(?:/.*)?"
    if glob == "*":
        return "/[^/]+"
    return "/" + "[^/]*".join(map(re.escape, re.split(r"\*+", glob)))


def _normalised(glob: str) -> str:
    return glob.casefold().rstrip("/") or "/"


def _problems(rules: tuple[PolicyRule, ...]) -> Iterator[str]:
    seen = {READ_ONLY, DEFAULT}  # what a Decision's `rule` says when it was none
    for rule in rules:
        if not rule.name or rule.name in seen:
            yield f"rule {rule.name!r}: needs a name of its own, not {READ_ONLY} or {DEFAULT}"
        seen.add(rule.name)
        for text in unmatched(rule.operations):
            yield f"rule {rule.name!r}: {text}"
        for glob in rule.paths:
            path = paths.decision_path(glob)
            if path != _normalised(glob):
                yield f"rule {rule.name!r}: no path can match {glob!r}; did you mean {path!r}?"


def unmatched(globs: tuple[str, ...]) -> Iterator[str]:
    """Tell of each glob that means no operation at all."""
    for glob in globs:
        if not names_matching(glob):
            yield f"no operation matches {glob!r}{_nearest(glob)}"


def _nearest(glob: str) -> str:
    import difflib  # noqa: PLC0415 - only a typing error in a rule needs it, never a start

    names = difflib.get_close_matches(glob, sorted(operations.NAMES), n=1, cutoff=0.3)
    return f"; did you mean {names[0]!r}?" if names else ""
