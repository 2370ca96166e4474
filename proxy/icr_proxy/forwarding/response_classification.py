"""Does an answer say that the *token* is bad, or that this token may not do this?

The first is healed by a new token, the second is the caller's to read. The API was once seen to
answer 403 "Access token invalid" instead of 401 (T), so the status alone does not tell; re-minting
on every 403 would double the load of every real permission error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import ContentCodingError
from icr_proxy.http1.content_coding import content_codings, decode
from icr_proxy.http1.headers import single

if TYPE_CHECKING:
    from collections.abc import Sequence

UNAUTHORIZED = 401
FORBIDDEN = 403
INSPECT_LIMIT = 4096  # bytes; the error bodies seen have about a hundred

ABOUT_TOKEN = re.compile(r"\b(?:token|jwt|bearer)\b", re.IGNORECASE)
BAD = re.compile(
    r"\b(?:invalid|expired|revoked|unknown|malformed|missing|inactive|not\s+(?:valid|active|found))\b",
    re.IGNORECASE,
)
ABOUT_PERMISSION = re.compile(r"permi(?:ssion|tted)|\bscopes?\b|\broles?\b", re.IGNORECASE)


class ErrorBody(msgspec.Struct):
    """The part of the API's error body that decides; `message` is text or a list of texts (V)."""

    message: str | list[str] = ""


def may_be_about_token(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the body of a 403 is worth reading: small JSON, as far as the head tells."""
    if status != FORBIDDEN:
        return False
    content_type = single(headers, b"content-type") or b""
    length = single(headers, b"content-length")
    small = length is None or (length.isdigit() and int(length) <= INSPECT_LIMIT)
    return small and b"json" in content_type.lower()


def says_token_is_bad(body: bytes, *, encoding: bytes | None) -> bool:
    """Read the message of a 403's body; what cannot be understood is not about the token."""
    if encoding is not None:
        opened = _opened(body, encoding)
        if opened is None:
            return False
        body = opened
    try:
        message = msgspec.json.decode(body, type=ErrorBody).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    text = message if isinstance(message, str) else " ".join(message)
    return bool(ABOUT_TOKEN.search(text) and BAD.search(text) and not ABOUT_PERMISSION.search(text))


def _opened(body: bytes, encoding: bytes) -> bytes | None:
    """Look into a decoded copy; what is passed on stays encoded."""
    codings = content_codings([(b"content-encoding", encoding)])
    try:
        return decode(body, codings, limit=INSPECT_LIMIT * 4)
    except ContentCodingError:
        return None
