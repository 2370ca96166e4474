"""What can be said without sending anything: the key, and the ways out of this machine."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from proxy.doctor.findings import Finding
from proxy.errors import KeyUnusableError
from proxy.files import pem_of
from proxy.keyfiles import encoding_of
from proxy.keys import read_key_file
from proxy.keysources import load_keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from proxy.config import AppConfig
    from proxy.doctor.case import Case
    from proxy.keys import SigningKey

REMEDY = "download a private key of the app from the registry"
EGRESS = re.compile(r"(?:https?|all)_proxy", re.IGNORECASE)


async def key(case: Case) -> AsyncIterator[Finding]:
    """Load the private key as the proxy would, or all keys of a directory."""
    if case.config.app.private_keys_dir is not None:
        for finding in _keys(case.config.app):
            yield finding
        return
    try:
        signer = case.session.keys.current()
    except KeyUnusableError as error:
        yield Finding("key", "fail", error.detail, REMEDY)
    else:
        text = _key_text(case.config.app)
        yield Finding("key", "ok", describe(signer, *([encoding_of(text)] if text else [])))


def _keys(app: AppConfig) -> Iterator[Finding]:
    try:
        reading = load_keys(app)
    except KeyUnusableError as error:
        yield Finding("key", "fail", error.detail, REMEDY)
        return
    for each in reading.rejected:
        yield Finding("key", "warn", each.detail, f"remove that file, or {REMEDY}")
    for found in reading.keys:
        yield Finding("key", "ok", describe(found))


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
