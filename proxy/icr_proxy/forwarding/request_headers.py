"""Headers of a request to the API. The order of the lines is the security property.

The received headers are copied without hop-by-hop fields and without the caller's credentials;
*then* ours are added. The other way round a caller's `Connection: authorization` would remove our
header (golang/go#50580). What was received is never changed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from icr_proxy.errors import BadRequestError
from icr_proxy.http1.headers import (
    HOP_BY_HOP,
    REQUEST_ID,
    TRACEPARENT,
    VERSION,
    Header,
    dashed,
    only,
)
from icr_proxy.http1.request_head import block_of
from icr_proxy.memo import Memo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.config.inbound_models import HeadersConfig
    from icr_proxy.config.models import UpstreamConfig
    from icr_proxy.http1.headers import Fields
    from icr_proxy.http1.request_head import HeaderBlock, HeaderLine

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
VIA = (b"Via", b"1.1 icr-proxy")
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
        dropped |= {VERSION}
        # Servers that map both `-` and `_` to the same variable (CGI, WSGI) read these as one.
        look_alikes = frozenset(map(dashed, dropped))
        self._is_dropped: Memo[bytes, bool] = Memo(
            lambda name: name in dropped or (b"_" in name and dashed(name) in look_alikes)
        )
        self._host = (b"Host", host)
        self._version = upstream.api_version.encode("ascii")
        self._override = upstream.api_version_override

    def edit(
        self,
        received: Iterable[Header],
        *,
        authorization: bytes,
        request_id: bytes,
        traceparent: bytes,
    ) -> list[Header]:
        """Give what is sent to the API in place of these headers; raises what `prepare` raises."""
        return self.prepare(block_of(received)).lines(authorization, request_id, traceparent)

    def prepare(self, section: HeaderBlock, *, via: Header = VIA) -> Prepared:
        """Prepare what follows from the received lines, for this request and others like it.

        Raises:
            BadRequestError: the client names two different API versions.
        """
        named, is_dropped = section.options, self._is_dropped
        kept = [
            line for line in section.lines if line.name not in named and not is_dropped[line.name]
        ]
        return Prepared(self._host, kept, ((VERSION, self._choose_version(section)), via))

    def _choose_version(self, section: HeaderBlock) -> bytes:
        """The API version that the client names, if it may; else the configured one."""
        if self._override or VERSION not in section.fields or VERSION in section.options:
            return self._version
        given = {value for value in section.fields[VERSION] if value}
        if len(given) > 1:
            raise BadRequestError("x-icr-api-version was sent with different values")
        return given.pop() if given else self._version


class Prepared:
    """The headers of a request to the API, but for what is new in each."""

    __slots__ = ("_after", "_before", "_host", "_kept", "_own")

    def __init__(self, host: Header, kept: Sequence[HeaderLine], own: Sequence[Header]) -> None:
        """`kept` is what the client sent; `own` comes after the credential."""
        self._host = host
        self._kept = kept
        self._own = own
        self._before = b"%bAuthorization: " % (
            b"Host: %b\r\n" % host[1] + b"".join([line.written for line in kept])
        )
        self._after = b"\r\n%bX-Request-Id: " % encoded(own)

    def lines(self, authorization: bytes, request_id: bytes, traceparent: bytes) -> list[Header]:
        """Give the headers one by one."""
        return [
            self._host,
            *(line.header for line in self._kept),
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


def given_ids(fields: Fields) -> tuple[str | None, bytes | None]:
    """The client's harmless `X-Request-Id` and its `traceparent`, if it sent them.

    A request ID that is repeated or not harmless does not count.
    """
    found = SAFE_ID.fullmatch(only(fields, REQUEST_ID) or b"")
    return None if found is None else found[0].decode("ascii"), only(fields, TRACEPARENT)
