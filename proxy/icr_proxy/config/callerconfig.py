"""Who may call, as configured.

A table of keys like `config`: annotations are real objects.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from icr_proxy.config import admission
from icr_proxy.config import fields as of
from icr_proxy.config.spec import Key, Rule, check


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerConfig:
    """One caller; without a key and a certificate it is shut out."""

    must_hold: ClassVar = (Rule(("operations",), admission.operations_that_exist),)

    name: Annotated[str, Key(of.CALLER_NAME, "What log, metrics and rules call it.", live=True)]
    keys: Annotated[
        tuple[str, ...],
        Key(
            of.KEY_HASHES,
            "Hashes of its keys, as `icr-proxy keys caller` prints them; several while one is"
            " replaced.",
            live=True,
        ),
    ] = ()
    certificates: Annotated[
        tuple[str, ...],
        Key(
            of.CERTIFICATE_NAMES,
            "Names in client certificates that are its: `dns:…`, `uri:…`, `email:…`, `cn:…`.",
            live=True,
        ),
    ] = ()
    installations: Annotated[
        tuple[str, ...],
        Key(of.INSTALLATION_IDS, "Installations it may act for; empty is any.", live=True),
    ] = ()
    operations: Annotated[
        tuple[str, ...],
        Key(of.OPERATIONS, "Operations it may do, as in `v1.*`; empty is any.", live=True),
    ] = ()
    listeners: Annotated[
        tuple[str, ...],
        Key(of.BINDS, "Listeners it may use, by their `bind`; empty is any.", live=True),
    ] = ()

    def __post_init__(self) -> None:
        check(self)


# In place of callers who were all removed while running: nobody comes in, nothing is opened.
NOBODY = CallerConfig(name="nobody")
