"""What a response proves: its effect on the request, and whether it rejects the token.

The first is healed by a new token, the second is the caller's to read. The API was once seen to
answer 403 "Access token invalid" instead of 401 (T), so the status alone does not tell; re-minting
on every 403 would double the load of every real permission error.

Asked for one purpose: may the same request be sent again without its happening twice? A wrong "no"
costs a wait, a wrong "yes" costs credits, so whatever proves nothing is `UNKNOWN`.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import DECODE_ERRORS, ContentCodingError
from icr_proxy.http1.content_coding import content_codings, decode
from icr_proxy.http1.headers import single

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def is_token_rejection(body: bytes, *, encoding: bytes | None) -> bool:
    """Read the message of a 403's body; what cannot be understood is not about the token."""
    if encoding is not None:
        opened = _opened(body, encoding)
        if opened is None:
            return False
        body = opened
    try:
        message = msgspec.json.decode(body, type=ErrorBody).message
    except DECODE_ERRORS:
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


class Effect(Enum):
    """What effect a request had at the API."""

    APPLIED = "done"
    """The API has dealt with it, and said so."""
    REJECTED = "refused"
    """The API has refused it for good: the same request would be refused again."""
    NOT_APPLIED = "not now"
    """The API has not acted, and may do so if asked again."""
    UNKNOWN = "unknown"
    """It may have acted."""


# Statuses that are not what their class says. RFC 9110, 15, unless noted.
ODD: dict[int, Effect] = {
    401: Effect.NOT_APPLIED,  # about the credential; the next token may do
    403: Effect.NOT_APPLIED,  # about a permission, which an admin may grant meanwhile
    # "Did not receive a complete request": but it was sent whole, so somebody between us and the
    # API is speaking, and what that one has passed on is not known.
    408: Effect.UNKNOWN,
    425: Effect.NOT_APPLIED,  # RFC 8470: not processed, on purpose
    429: Effect.NOT_APPLIED,  # RFC 6585: not processed, on purpose
    # Gateways say these of a client that left in the middle (nginx 499, AWS 460): we did not.
    460: Effect.UNKNOWN,
    499: Effect.UNKNOWN,
    501: Effect.REJECTED,  # the method is not implemented
    505: Effect.REJECTED,  # the version of HTTP is not
}
UNAVAILABLE = 503
CLASSES: dict[int, Effect] = {
    2: Effect.APPLIED,
    3: Effect.APPLIED,  # 303 is how some APIs say so; 307 and 308 have not acted: known too
    4: Effect.REJECTED,
    # 500 may come after a commit, 502 and 504 from a gateway that lost sight of the API, 520 to 530
    # from one that never says which (Cloudflare).
    5: Effect.UNKNOWN,
}


def classify_effect(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Effect:
    """Read an answer of the API.

    503 is said by an API that turns work away, and then tells when to come back; it is also what
    Envoy says when the connection broke after the request had been passed on, without such a hint.
    """
    if status == UNAVAILABLE:
        hinted = any(name.lower() == b"retry-after" for name, _ in headers)
        return Effect.NOT_APPLIED if hinted else Effect.UNKNOWN
    return ODD.get(status) or CLASSES.get(status // 100, Effect.UNKNOWN)
