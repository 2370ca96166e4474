"""Headers of a request to the API. The order of the lines is the security property.

The received headers are copied without hop-by-hop fields and without the caller's credentials;
*then* ours are added. The other way round a caller's `Connection: authorization` would remove our
header (golang/go#50580). What was received is never changed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from icr_proxy.errors import BadRequestError
from icr_proxy.http1.headers import (
    HOP_BY_HOP,
    REQUEST_ID,
    TRACEPARENT,
    VERSION,
    Header,
    connection_options,
    dashed,
    single,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.config.inbound_models import HeadersConfig
    from icr_proxy.config.models import UpstreamConfig

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


def choose_request_id(received: Iterable[Header], *, fresh: bytes) -> bytes:
    """Keep the caller's `X-Request-Id` if it is one harmless value, else use a fresh one."""
    value = single(received, REQUEST_ID)
    return value if value is not None and SAFE_ID.fullmatch(value) else fresh


def given_ids(
    received: Sequence[Header], *, derived: dict[Any, Any]
) -> tuple[str | None, bytes | None]:
    """Give the caller's harmless `X-Request-Id`, and its `traceparent`, if it sent them.

    `derived` is what was made of the same headers before.
    """
    known: tuple[str | None, bytes | None] | None = derived.get(given_ids)
    if known is None:
        chosen = choose_request_id(received, fresh=b"").decode("ascii")
        known = derived[given_ids] = (chosen or None, single(received, TRACEPARENT))
    return known
