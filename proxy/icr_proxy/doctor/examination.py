"""The order of the steps, and which of them make no sense after which others have failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from icr_proxy.doctor import api, api_checks, locally, network_checks
from icr_proxy.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from icr_proxy.doctor.case import Case

CONFIGURATION = "configuration"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to look at; it is skipped if one of `needs` failed or was skipped."""

    name: str
    look: Callable[[Case], AsyncIterator[Finding]]
    needs: tuple[str, ...] = ()


STEPS = (
    Step("key", locally.key),
    Step("secret files", locally.secret_files),
    Step("audit trail", locally.audit_trail),
    Step("egress proxy", locally.egress),
    Step("DNS", network_checks.names),
    Step("TCP", network_checks.connection, needs=("DNS",)),
    Step("TLS", network_checks.encryption, needs=("TCP",)),
    Step("clock", api.clock, needs=("TLS",)),
    Step("app JWT", api.signature, needs=("key", "TLS")),
    Step("installations", api.installations, needs=("app JWT",)),
    Step("token", api_checks.tokens, needs=("app JWT",)),
    Step("API version", api_checks.version, needs=("TLS",)),
)


async def examine(case: Case, *, tell: Callable[[Finding], None]) -> None:
    """Go through all steps, telling each finding as soon as it is known; revoke in the end."""
    stuck: set[str] = set()
    try:
        for step in STEPS:
            cause = next((name for name in step.needs if name in stuck), None)
            if cause is not None:
                stuck.add(step.name)
                tell(Finding(step.name, "skip", f"needs {cause}"))
                continue
            async for finding in step.look(case):
                tell(finding)
                if finding.state == "fail":
                    stuck.add(step.name)
    finally:
        async for finding in api_checks.revoke(case):
            tell(finding)


def not_examined(problems: tuple[str, ...]) -> list[Finding]:
    """Give the findings if there is no configuration to examine."""
    remedy = "mend the configuration; `icr-proxy check` looks at nothing else"
    return [
        Finding(CONFIGURATION, "fail", "\n".join(problems), remedy),
        *(Finding(step.name, "skip", f"needs {CONFIGURATION}") for step in STEPS),
    ]
