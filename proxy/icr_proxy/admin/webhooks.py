"""Lifecycle webhooks of the app: is this one genuine, and whose token does it concern?

The signature covers the base64 text `signedData`, not the rest of the body (V), so only what is
inside `signedData` is believed. What a genuine event may cause is harmless even if it is replayed:
a token is dropped and minted anew.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import WebhookRefusedError
from icr_proxy.identifiers import canonical_id, is_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from icr_proxy.redaction import Secret

SIGNATURE = b"x-icr-signature-256"
SCHEME = b"sha256="
# Events after which a cached token is useless or out of date (D); others are only noted.
CONCERNING = frozenset({"suspended", "unsuspended", "uninstalled", "newPermissionsAccepted"})
# What msgspec raises: not JSON or of another shape, not UTF-8, nested beyond all measure.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Event(msgspec.Struct, frozen=True):
    """A genuine event; `installation` is `None` where it names none."""

    name: str
    installation: str | None

    @property
    def drops_token(self) -> bool:
        """Whether the installation's token must not be used any more."""
        return self.name in CONCERNING and self.installation is not None


class Envelope(msgspec.Struct):
    """The body of a delivery; everything beside `signedData` is unsigned and not read."""

    signed_data: str = msgspec.field(name="signedData")


class Signed(msgspec.Struct):
    """What is inside `signedData`: the delivery's own members, as far as is known (I)."""

    event: str
    installation: object = None


def read_event(headers: Iterable[tuple[bytes, bytes]], body: bytes, *, secret: Secret) -> Event:
    """Verify a delivery, in constant time, and say what it tells.

    Raises:
        WebhookRefusedError: it is not genuine, or cannot be understood.
    """
    signatures = [value for name, value in headers if name.lower() == SIGNATURE]
    try:
        data = msgspec.json.decode(body, type=Envelope).signed_data
    except UNREADABLE:
        raise WebhookRefusedError("the delivery has no signedData") from None
    expected = SCHEME + hmac_hex(secret, data)
    # Compared even if there is no signature, so that both cases take as long.
    given = signatures[0] if len(signatures) == 1 else b""
    is_right = hmac.compare_digest(given.lower(), expected)
    # Anybody can sign with an empty secret, as an empty file gives it.
    if not is_right or not secret:
        raise WebhookRefusedError("the delivery's signature is not right")
    return _parse(data)


def hmac_hex(secret: Secret, data: str) -> bytes:
    """HMAC-SHA-256 of a delivery's `signedData`, in hex."""
    # The secret from an environment that is not UTF-8 has surrogates.
    key = secret.reveal().encode("utf-8", "surrogatepass")
    return hmac.new(key, data.encode(), hashlib.sha256).hexdigest().encode()


def _parse(data: str) -> Event:
    try:
        signed = msgspec.json.decode(binascii.a2b_base64(data), type=Signed)
    except (ValueError, *UNREADABLE):  # `ValueError`: not base64
        raise WebhookRefusedError("the delivery's signedData cannot be understood") from None
    return Event(name=signed.event, installation=_installation(signed.installation))


def _installation(found: object) -> str | None:
    named = found.get("id") if isinstance(found, dict) else None
    return canonical_id(named) if isinstance(named, str) and is_id(named.encode()) else None
