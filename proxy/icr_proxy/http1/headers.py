"""Which headers go on to the API. The order of the lines is the security property.

The received headers are copied without hop-by-hop fields and without the caller's credentials;
*then* ours are added. The other way round a caller's `Connection: authorization` would remove our
header (golang/go#50580). What was received is never changed. Of an answer, `passingback` decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.errors import (
    BadRequestError,
    BodyTooLargeError,
    ExpectationFailedError,
    NotImplementedMethodError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


Header = tuple[bytes, bytes]

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

IDEMPOTENCY_KEY = b"idempotency-key"


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


def connection_options(headers: Iterable[Header]) -> frozenset[bytes]:
    """Lower-case names that `Connection` lists as meant for this hop only (RFC 9110, 7.6.1)."""
    names: set[bytes] = set()
    for name, value in headers:
        if len(name) == 10 and name.lower() == b"connection":  # noqa: PLR2004  # len("connection")
            names.update(option.strip().lower() for option in value.split(b","))
    return frozenset(names)


def single(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The value of a header that occurs exactly once; `name` in lower case."""
    values = [value for key, value in headers if key.lower() == name]
    return values[0] if len(values) == 1 else None


def idempotency_key(received: Iterable[Header]) -> bytes | None:
    """Give the caller's `Idempotency-Key`, if it is there and not empty.

    Raises:
        BadRequestError: there is more than one.
    """
    keys = [value for name, value in received if name.lower() == IDEMPOTENCY_KEY]
    if len(keys) > 1:
        raise BadRequestError("send the header Idempotency-Key exactly once")
    return keys[0] if keys and keys[0] else None


def refuse_expectations(received: Iterable[Header]) -> None:
    """Promise nothing that is not kept (RFC 9110, 10.1.1).

    Raises:
        ExpectationFailedError: the caller expects more than to be told to go on.
    """
    for name, value in received:
        expects = len(name) == 6 and name.lower() == b"expect"  # noqa: PLR2004  # len("expect")
        if expects and any(each.strip() != b"100-continue" for each in value.lower().split(b",")):
            raise ExpectationFailedError("only the expectation 100-continue can be met")


def refuse_upgrade(received: Sequence[Header]) -> None:
    """Let no other protocol through.

    `h2c` is passed over: Java's HttpClient offers it on every plain connection and is content with
    an answer in HTTP/1.1 (RFC 9110, 7.8).

    Raises:
        NotImplementedMethodError: the caller wants to leave HTTP, for a WebSocket perhaps.
    """
    if b"upgrade" not in connection_options(received):
        return
    offers = [value.strip().lower() for name, value in received if name.lower() == b"upgrade"]
    if any(offer != b"h2c" for offer in offers):
        raise NotImplementedMethodError("protocol upgrades are not forwarded")
