"""Header fields: hop-by-hop rules, sizes, Basic credentials, loop detection.

The received headers are copied without hop-by-hop fields and without the caller's credentials;
*then* ours are added. The other way round a caller's `Connection: authorization` would remove our
header (golang/go#50580). What was received is never changed. Of an answer, `response_head` decides.

Each process has a pseudonym of its own (RFC 9110, 7.6.3), so that one of us may stand before
another, beside an application and as its gateway, and a loop is known all the same.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, TypeAlias

from icr_proxy.errors import (
    BadRequestError,
    BodyTooLargeError,
    ExpectationFailedError,
    LoopDetectedError,
    NotImplementedMethodError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

Header = tuple[bytes, bytes]
Fields: TypeAlias = "Mapping[bytes, Sequence[bytes]]"
"""The values of a head by lower-case name, each in the order in which they came."""

# RFC 9110, 7.6.1, and what RFC 2616, 13.5.1 listed before it. `Trailer` stays out because trailers
# are not forwarded.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
VERSION = b"x-icr-api-version"
REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"
PROXY_ERROR = b"x-icr-proxy-error"


def dashed(name: bytes) -> bytes:
    """Write a header's name as servers read it that take `_` for `-`."""
    return name.replace(b"_", b"-")


def refuse_long_body(length: int | None, *, limit: int | None) -> None:
    """Refuse a body that is announced as longer than `limit` bytes; None is no limit.

    Raises:
        BodyTooLargeError: it is.
    """
    if length is not None and limit is not None and length > limit:
        raise BodyTooLargeError("the request body is longer than this proxy accepts")


# What `Connection` says in nearly all requests.
USUAL_OPTIONS = {value: frozenset({value}) for value in (b"keep-alive", b"close")}


def fields_of(headers: Iterable[Header]) -> Fields:
    """Index header lines by name."""
    fields: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value)
    return fields


def connection_options(fields: Fields) -> frozenset[bytes]:
    """Lower-case names that `Connection` lists as meant for this hop only (RFC 9110, 7.6.1)."""
    value = b",".join(fields.get(b"connection", ())).lower()
    return USUAL_OPTIONS.get(value) or frozenset(map(bytes.strip, value.split(b",")))


def only(fields: Fields, name: bytes) -> bytes | None:
    """The value of a header that occurs exactly once; `name` in lower case."""
    values = fields.get(name, ())
    return values[0] if len(values) == 1 else None


def single(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The value of a header that occurs exactly once; `name` in lower case."""
    values = [value for key, value in headers if key.lower() == name]
    return values[0] if len(values) == 1 else None


def idempotency_key(fields: Fields) -> bytes | None:
    """The client's `Idempotency-Key`, if it is there and not empty.

    Raises:
        BadRequestError: there is more than one.
    """
    keys = fields.get(b"idempotency-key", ())
    if len(keys) > 1:
        raise BadRequestError("send the header Idempotency-Key exactly once")
    return keys[0] if keys and keys[0] else None


def refuse_expectations(fields: Fields) -> None:
    """Refuse every expectation but `100-continue` (RFC 9110, 10.1.1).

    Raises:
        ExpectationFailedError: the client expects something else.
    """
    for value in fields.get(b"expect", ()):
        if any(each.strip() != b"100-continue" for each in value.lower().split(b",")):
            raise ExpectationFailedError("only the expectation 100-continue can be met")


def refuse_upgrade(fields: Fields, options: Collection[bytes]) -> None:
    """Refuse a change to another protocol; `options` are those of `Connection`.

    `h2c` is ignored: Java's HttpClient offers it on every plain connection and is content with
    an answer in HTTP/1.1 (RFC 9110, 7.8).

    Raises:
        NotImplementedMethodError: the client wants to leave HTTP, for a WebSocket perhaps.
    """
    if b"upgrade" not in options:
        return
    if any(offer.strip().lower() != b"h2c" for offer in fields.get(b"upgrade", ())):
        raise NotImplementedMethodError("protocol upgrades are not forwarded")


BASIC = re.compile(rb"basic(?:[ \t]+(.*))?", re.IGNORECASE | re.DOTALL)


def is_basic(value: bytes) -> bool:
    """Tell whether a header's value is of this scheme, well-formed or not."""
    return BASIC.fullmatch(value) is not None


def read_basic(value: bytes) -> tuple[bytes, bytes] | None:
    """Give user and password; `None` if it is another scheme, or not to be read."""
    basic = BASIC.fullmatch(value)
    if basic is None:
        return None
    try:
        decoded = binascii.a2b_base64(basic[1] or b"", strict_mode=True)
    except binascii.Error:
        return None
    user, colon, password = decoded.partition(b":")
    return (user, password) if colon else None


NAME = b"icr-proxy"
OURS = re.compile(rb"[^ \t]+[ \t]+icr-proxy(?:-[0-9a-f]{8})?(?:[ \t]+\(.*)?", re.IGNORECASE)
MAX_OWN_HOPS = 5  # proxies of our own kind; two are sensible
# What this proxy forwards, told to whoever asks it and not the API.
ALLOWED = (b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
MAX_DIGITS = 9


class LoopDetector:
    """Detects requests that come back to this proxy, by `Via`."""

    def __init__(self, pseudonym: bytes) -> None:
        """Be known as `icr-proxy-` and 8 hexadecimal digits."""
        self._pseudonym = pseudonym
        self._via = (b"Via", b"1.1 " + pseudonym)
        self._via_old = (b"Via", b"1.0 " + pseudonym)

    def via(self, *, is_old: bool) -> Header:
        """Give our entry, for a request that came in HTTP/1.1, or in HTTP/1.0."""
        return self._via_old if is_old else self._via

    def check(self, fields: Fields) -> None:
        """Refuse a request that this proxy forwarded before.

        Raises:
            LoopDetectedError: the request came back, or went through too many of our kind.
        """
        if b"via" not in fields:
            return
        ours = 0
        for value in fields[b"via"]:
            if self._pseudonym in value:
                raise LoopDetectedError("the request has come back to this proxy")
            ours += sum(bool(OURS.fullmatch(each.strip())) for each in value.split(b","))
        if ours > MAX_OWN_HOPS:
            raise LoopDetectedError("the request has gone through too many proxies of this kind")


def ends_here(method: str, fields: Fields) -> bool:
    """Whether `Max-Forwards` says that the proxy answers by itself.

    It concerns OPTIONS and TRACE (RFC 9110, 7.6.2), and TRACE is not forwarded.

    Raises:
        BadRequestError: it is not one number.
    """
    if method != "OPTIONS" or b"max-forwards" not in fields:
        return False
    value = only(fields, b"max-forwards")
    if value is None or not value.isdigit() or len(value) > MAX_DIGITS:
        raise BadRequestError("Max-Forwards is not one number")
    return int(value) == 0


def counted_down(headers: Iterable[Header]) -> list[Header]:
    """Copy headers with `Max-Forwards`, which `ends_here` has checked, one less."""
    return [
        (name, b"%d" % (int(value) - 1)) if name.lower() == b"max-forwards" else (name, value)
        for name, value in headers
    ]
