"""Which headers go on to the API. The order of the lines is the security property.

The received headers are copied without hop-by-hop fields and without the caller's credentials;
*then* ours are added. The other way round a caller's `Connection: authorization` would remove our
header (golang/go#50580). What was received is never changed. Of an answer, `passingback` decides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from icr_proxy.errors import (
    BadRequestError,
    BodyTooLargeError,
    ExpectationFailedError,
    NotImplementedMethodError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.config.inbound_models import HeadersConfig
    from icr_proxy.config.upstreamconfig import UpstreamConfig

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
# Framing and expectations are negotiated anew on each connection.
OURS_UPSTREAM = frozenset({b"content-length", b"expect", b"host"})
CREDENTIALS = frozenset({b"authorization"})
FORWARDED = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
    }
)
VERSION = b"x-icr-api-version"
REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"
PROXY_ERROR = b"x-icr-proxy-error"
VIA = (b"Via", b"1.1 icr-proxy")

IDEMPOTENCY_KEY = b"idempotency-key"

SAFE_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}")


class RequestHeaders:
    """The rules towards the API, compiled once from the configuration."""

    def __init__(self, *, headers: HeadersConfig, upstream: UpstreamConfig, host: bytes) -> None:
        tags = frozenset(
            name.lower().encode("ascii") for name in (headers.installation, headers.organization)
        )
        dropped = HOP_BY_HOP | OURS_UPSTREAM | CREDENTIALS | tags | {REQUEST_ID, TRACEPARENT}
        for name in headers.drop:
            lower = name.lower().encode("ascii")
            dropped |= {lower, dashed(lower)}
        if headers.forwarded == "drop":
            dropped |= FORWARDED
        self._dropped = frozenset(dropped)
        # Servers that map both `-` and `_` to the same variable (CGI, WSGI) read these as one.
        self._look_alikes = frozenset(dashed(name) for name in dropped | {VERSION})
        self._host = (b"Host", host)
        self._version = (b"x-icr-api-version", upstream.api_version.encode("ascii"))
        self._override = upstream.api_version_override

    def edit(
        self,
        received: Iterable[Header],
        *,
        authorization: bytes,
        request_id: bytes,
        traceparent: bytes,
        via: Header = VIA,
    ) -> list[Header]:
        """Give what is sent to the API instead of what was received.

        Raises:
            BadRequestError: the caller names two different API versions.
        """
        return self.prepare(received, via=via).lines(authorization, request_id, traceparent)

    def prepare(self, received: Iterable[Header], *, via: Header = VIA) -> Prepared:
        """Give all of it that follows from what was received, and may be used for its like again.

        Raises:
            BadRequestError: the caller names two different API versions.
        """
        received = tuple(received)
        named = connection_options(received)
        kept: list[Header] = [self._host]
        version = self._version
        chosen = False
        for header in received:
            name = header[0].lower()
            if name in named:
                continue
            if name == VERSION:
                if header[1] and not self._override:
                    if chosen and version[1] != header[1]:
                        raise BadRequestError("x-icr-api-version was sent with different values")
                    version, chosen = header, True
                continue
            if name in self._dropped or (b"_" in name and dashed(name) in self._look_alikes):
                continue
            kept.append(header)
        return Prepared(kept, ((b"x-icr-api-version", version[1]), via))


class Prepared:
    """The headers of a request to the API, but for what is new in each."""

    __slots__ = ("_after", "_before", "_kept", "_own")

    def __init__(self, kept: Sequence[Header], own: Sequence[Header]) -> None:
        """Keep what the caller sent apart from what comes after the credential."""
        self._kept = kept
        self._own = own
        self._before = encoded(kept) + b"Authorization: "
        self._after = b"\r\n" + encoded(own) + b"X-Request-Id: "

    def lines(self, authorization: bytes, request_id: bytes, traceparent: bytes) -> list[Header]:
        """Give the headers one by one."""
        return [
            *self._kept,
            (b"Authorization", authorization),
            *self._own,
            (b"X-Request-Id", request_id),
            (b"traceparent", traceparent),
        ]

    def block(self, authorization: bytes, request_id: bytes, traceparent: bytes) -> bytes:
        """Give the same as it goes over the wire; each line has its end."""
        return b"%b%b%b%b\r\ntraceparent: %b\r\n" % (
            self._before, authorization, self._after, request_id, traceparent,
        )  # fmt: skip


def encoded(headers: Iterable[Header]) -> bytes:
    """Write header lines, each with its end."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


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


def choose_request_id(received: Iterable[Header], *, fresh: bytes) -> bytes:
    """Keep the caller's `X-Request-Id` if it is one harmless value, else use a fresh one."""
    value = single(received, REQUEST_ID)
    return value if value is not None and SAFE_ID.fullmatch(value) else fresh


def given_ids(
    received: Sequence[Header], *, notes: dict[Any, Any]
) -> tuple[str | None, bytes | None]:
    """Give the caller's harmless `X-Request-Id`, and its `traceparent`, if it sent them.

    `notes` is what was made of the same headers before.
    """
    known: tuple[str | None, bytes | None] | None = notes.get(given_ids)
    if known is None:
        chosen = choose_request_id(received, fresh=b"").decode("ascii")
        known = notes[given_ids] = (chosen or None, single(received, TRACEPARENT))
    return known


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
