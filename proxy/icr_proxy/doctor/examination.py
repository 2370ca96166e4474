"""The order of the steps, and the checks that send nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icr_proxy.audit.writer import check_trail
from icr_proxy.credentials.key_ring import load_keys
from icr_proxy.credentials.key_tools import encoding_of
from icr_proxy.credentials.signing_key import read_key_file
from icr_proxy.doctor import api_checks, network_checks
from icr_proxy.doctor.findings import DoctorFinding
from icr_proxy.errors import DirectoryInUseError, KeyUnusableError, StartError
from icr_proxy.files import pem_of
from icr_proxy.net.egress_proxy import unused_proxies
from icr_proxy.runtime.file_permissions import exposed_secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from icr_proxy.config.models import AppConfig
    from icr_proxy.credentials.signing_key import SigningKey
    from icr_proxy.doctor.findings import Case

REMEDY = "download a private key of the app from the registry"


async def key(case: Case) -> AsyncIterator[DoctorFinding]:
    """Load the private key as the proxy would, or all keys of a directory."""
    if case.config.app.private_keys_dir is not None:
        for finding in _keys(case.config.app):
            yield finding
        return
    try:
        signer = case.session.keys.current()
    except KeyUnusableError as error:
        yield DoctorFinding("key", "fail", error.detail, REMEDY)
    else:
        text = _key_text(case.config.app)
        yield DoctorFinding("key", "ok", describe(signer, *([encoding_of(text)] if text else [])))


def _keys(app: AppConfig) -> Iterator[DoctorFinding]:
    try:
        reading = load_keys(app)
    except KeyUnusableError as error:
        yield DoctorFinding("key", "fail", error.detail, REMEDY)
        return
    for each in reading.rejected:
        yield DoctorFinding("key", "warn", each.detail, f"remove that file, or {REMEDY}")
    for found in reading.keys:
        yield DoctorFinding("key", "ok", describe(found))


def describe(key: SigningKey, *more: str) -> str:
    """Say of a key what may be shown."""
    return ", ".join(("RSA", f"{key.bits} bits", *more, key.fingerprint))


def _key_text(app: AppConfig) -> str:
    """Give the text of the key once more, or none: a pipe gives it only once."""
    if app.private_key is not None:
        return pem_of(app.private_key.reveal())
    with suppress(KeyUnusableError):
        return read_key_file(app.private_key_file) if app.private_key_file is not None else ""
    return ""


async def secret_files(case: Case) -> AsyncIterator[DoctorFinding]:
    """Look for files with keys and secrets that other users can read."""
    for found in exposed_secrets(case.config):
        yield DoctorFinding(
            "secret files", "warn", str(found), "let the proxy's user alone read it"
        )


async def audit_trail(case: Case) -> AsyncIterator[DoctorFinding]:
    """Look at the audit trail as a start does, if there is to be one."""
    audit = case.config.audit
    if audit.directory is None:
        return
    try:
        await asyncio.to_thread(check_trail, audit.directory, config=audit)
    except DirectoryInUseError as error:
        yield DoctorFinding("audit trail", "ok", f"{error.detail.partition('; ')[0]}")
    except StartError as error:
        yield DoctorFinding("audit trail", "fail", error.detail, "see docs/audit.md, After a cut")
    else:
        yield DoctorFinding("audit trail", "ok", f"{audit.directory} can be used")


async def egress(case: Case) -> AsyncIterator[DoctorFinding]:
    """Look for a proxy that other programs would use, and this one does not."""
    unused = unused_proxies(case.environ, base_url=case.config.upstream.base_url)
    if unused:
        yield DoctorFinding(
            "egress proxy",
            "warn",
            f"not used, although the environment has {' and '.join(unused)}",
            f"allow direct connections from here to {case.host} port {case.port}",
        )
    else:
        yield DoctorFinding("egress proxy", "ok", "none is set for the API; connections are direct")


CONFIGURATION = "configuration"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to look at; it is skipped if one of `needs` failed or was skipped."""

    name: str
    look: Callable[[Case], AsyncIterator[DoctorFinding]]
    needs: tuple[str, ...] = ()


STEPS = (
    Step("key", key),
    Step("secret files", secret_files),
    Step("audit trail", audit_trail),
    Step("egress proxy", egress),
    Step("DNS", network_checks.names),
    Step("TCP", network_checks.connection, needs=("DNS",)),
    Step("TLS", network_checks.encryption, needs=("TCP",)),
    Step("clock", api_checks.clock, needs=("TLS",)),
    Step("app JWT", api_checks.signature, needs=("key", "TLS")),
    Step("installations", api_checks.installations, needs=("app JWT",)),
    Step("token", api_checks.tokens, needs=("app JWT",)),
    Step("API version", api_checks.version, needs=("TLS",)),
)


async def examine(case: Case, *, tell: Callable[[DoctorFinding], None]) -> None:
    """Go through all steps, telling each finding as soon as it is known; revoke in the end."""
    stuck: set[str] = set()
    try:
        for step in STEPS:
            cause = next((name for name in step.needs if name in stuck), None)
            if cause is not None:
                stuck.add(step.name)
                tell(DoctorFinding(step.name, "skip", f"needs {cause}"))
                continue
            async for finding in step.look(case):
                tell(finding)
                if finding.state == "fail":
                    stuck.add(step.name)
    finally:
        async for finding in api_checks.revoke(case):
            tell(finding)


def not_examined(problems: tuple[str, ...]) -> list[DoctorFinding]:
    """Give the findings if there is no configuration to examine."""
    remedy = "mend the configuration; `icr-proxy check` looks at nothing else"
    return [
        DoctorFinding(CONFIGURATION, "fail", "\n".join(problems), remedy),
        *(DoctorFinding(step.name, "skip", f"needs {CONFIGURATION}") for step in STEPS),
    ]
