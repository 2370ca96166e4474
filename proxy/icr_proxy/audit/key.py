"""The key of the audit trail's MACs: read from its file, refused if the file holds something else.

A file that is no key is refused before anything is done with it. With another file's text as key,
a trail would be sealed with what others know, or each record of a trail would seem to be forged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from icr_proxy.errors import StartError
from icr_proxy.redaction import read_secret

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.redaction import Secret

LEAST_KEY = 32  # characters; `openssl rand -hex 32` gives 64
MAKE_ONE = "make one with: openssl rand -hex 32"
# What base64 of 64 bytes and more looks like after `openssl rand -base64`.
_LINES = re.compile(r"[A-Za-z0-9+/=_-]+(?:\r?\n[A-Za-z0-9+/=_-]+)*")


def read_audit_key(path: Path, *, key: str) -> Secret:
    """Read the file that `key`, of the configuration or a command, names.

    Raises:
        StartError: it cannot be read, or holds no key of an audit trail.
    """
    secret = read_secret(path, key=key)
    problem = _problem_of(secret.reveal())
    if problem is not None:
        raise StartError(f"{key}: {path} {problem}; {MAKE_ONE}")
    return secret


def _problem_of(text: str) -> str | None:
    if "-----BEGIN" in text or text.startswith("LS0tLS1"):
        return "holds a PEM key or certificate and not the key of an audit trail"
    if text.lstrip().startswith(("{", "[")):
        return "holds JSON and not the key of an audit trail"
    if len(text) < LEAST_KEY:
        return f"holds less than {LEAST_KEY} characters"
    if not text.isprintable() and not _LINES.fullmatch(text):
        return "holds other text than the key of an audit trail"
    return None
