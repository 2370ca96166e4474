"""Kinds of value that are secret, or that stand where people might write a secret.

What `kinds` says of kinds holds here; refused values of these are never quoted.
"""
# ruff: noqa: D102, TRY004 - `Kind` says once what the methods do; readers raise one type

from __future__ import annotations

import hashlib
import re
from typing import Any, TypeAlias

import msgspec

from icr_proxy.net.addresses import REDIS_EXAMPLE, read_store_url
from icr_proxy.redaction import Secret, parse_secret

Schema: TypeAlias = dict[str, Any]

_KEY_HASH = "sha256:[0-9a-fA-F]{64}"
_HASH_SHOWN = len("sha256:") + 8
# What `echo "$KEY" | sha256sum` gives when the variable is not set, or with -n.
_OF_NOTHING = frozenset(
    f"sha256:{hashlib.sha256(text).hexdigest()}" for text in (b"", b"\n", b"\r\n")
)


class SecretText(msgspec.Struct, frozen=True):
    """Text that is never shown."""

    example: str = "***"

    def read(self, raw: object) -> Secret:
        if isinstance(raw, Secret):
            return raw
        if not isinstance(raw, str):
            raise ValueError("is not text")
        return self.parse(raw)

    def parse(self, text: str) -> Secret:
        return parse_secret(text)

    def write(self, value: Secret) -> str:  # noqa: ARG002 - that is the point
        return "***"

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


class KeyText(SecretText, frozen=True):
    """A private key as text; `keys` finds the PEM in it, in quotes as well."""

    def parse(self, text: str) -> Secret:
        return Secret(text)


class StoreUrl(msgspec.Struct, frozen=True):
    """Where Redis is; user and password in it are never shown."""

    example: str = REDIS_EXAMPLE

    def read(self, raw: object) -> Secret:
        if isinstance(raw, Secret):
            raw = raw.reveal()
        if not isinstance(raw, str):
            raise ValueError("is not text")
        secret = parse_secret(raw)
        read_store_url(secret.reveal())
        return secret

    def write(self, value: Secret) -> str:
        return re.sub(r"//[^/]*@", "//***@", value.reveal())

    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^(?:(?:rediss?|unix)://[!-~]+)$"}


class KeyHash(msgspec.Struct, frozen=True):
    """The hash of a caller's key; what else stands in its place may be the key, and is not shown.

    The hash itself opens nothing, but whoever has a list of them can tell a key that he has found.
    """

    example: str = "sha256:5a3e4c2b1d0f69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"

    def read(self, raw: object) -> str:
        text = raw if isinstance(raw, str) else ""
        if not re.fullmatch(_KEY_HASH, text):
            raise ValueError(
                "is not sha256: and 64 hexadecimal digits; write the hash of a key, never the key"
                " (icr-proxy keys caller makes both)"
            )
        if text.lower() in _OF_NOTHING:
            raise ValueError("is the hash of no key but of an empty line")
        return text.lower()

    def write(self, value: str) -> str:
        return f"{value[:_HASH_SHOWN]}…"

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{_KEY_HASH})$"}
