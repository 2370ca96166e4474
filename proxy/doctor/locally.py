"""What can be said without sending anything: the key, and the ways out of this machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proxy.doctor.findings import Finding
from proxy.errors import KeyUnusableError
from proxy.keyfiles import encoding_of
from proxy.keys import read_key_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.doctor.case import Case

EGRESS = re.compile(r"(?:https?|all)_proxy", re.IGNORECASE)


async def key(case: Case) -> AsyncIterator[Finding]:
    """Load the private key as the proxy would."""
    try:
        signer = case.session.keys.current()
        text = _key_text(case)
        encoding = f", {encoding_of(text)}" if text else ""  # of a directory one key was chosen
        found = f"RSA, {signer.bits} bits{encoding}, {signer.fingerprint}"
    except KeyUnusableError as error:
        remedy = "download a private key of the app from the registry"
        yield Finding("key", "fail", error.detail, remedy)
    else:
        yield Finding("key", "ok", found)


def _key_text(case: Case) -> str:
    app = case.config.app
    if app.private_key_file is not None:
        return read_key_file(app.private_key_file)
    return app.private_key.reveal() if app.private_key is not None else ""


async def egress(case: Case) -> AsyncIterator[Finding]:
    """Look for a proxy that other programs would use, and this one does not."""
    names = sorted(name for name, value in case.environ.items() if value and EGRESS.fullmatch(name))
    exempt = case.environ.get("no_proxy") or case.environ.get("NO_PROXY") or ""
    if names and not is_exempt(case.host, exempt):
        yield Finding(
            "egress proxy",
            "warn",
            f"not used, although the environment has {' and '.join(names)}",
            f"allow direct connections from here to {case.host} port {case.port}",
        )
    else:
        yield Finding("egress proxy", "ok", "none is set for the API; connections are direct")


def is_exempt(host: str, listed: str) -> bool:
    """Tell whether a host is in `NO_PROXY`, as most programs read it: names cover what is below."""
    names = [name.strip().lstrip(".").lower() for name in listed.split(",")]
    return any(name == "*" or (name and f".{host}".endswith(f".{name}")) for name in names)
