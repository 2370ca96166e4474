"""An examination without the command around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from icr_proxy.doctor.examination import examine
from icr_proxy.doctor.findings import Case
from icr_proxy.doctor.session import AppSession
from tests.support.app_fixture import config_for

if TYPE_CHECKING:
    from icr_proxy.config.models import Config
    from icr_proxy.doctor.findings import DoctorFinding
    from icr_proxy.emulator.server import Emulator


def config_before(emulator: Emulator, **sections: Any) -> Config:
    """Give the configuration of a proxy in front of an emulator."""
    return config_for(
        sections.pop("base_url", emulator.base_url),
        app_id=sections.pop("app_id", emulator.app_id),
        key=sections.pop("key", emulator.private_key_pem),
        **sections,
    )


async def findings_of(config: Config, **options: Any) -> list[DoctorFinding]:
    """Examine, and give all that was told."""
    found: list[DoctorFinding] = []
    async with AppSession(config) as session:
        case = Case(session=session, environ=options.pop("environ", {}), **options)
        await examine(case, tell=found.append)
    return found


def states(findings: list[DoctorFinding]) -> dict[str, str]:
    """Give the state of each step; of several findings, the last."""
    return {each.name: each.state for each in findings}


def find(findings: list[DoctorFinding], name: str) -> DoctorFinding:
    """Give the first finding of a step."""
    return next(each for each in findings if each.name == name)
