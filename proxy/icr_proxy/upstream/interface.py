"""One narrow way to the API: give it a request, get the head of the answer and a body to read.

This file states the interface; `pool` and `connection` are the engine behind it, and could be
replaced. No engine knows tokens, installations or problem codes, and none sends a request twice:
whether that is safe is decided by `forwarder` and `token_exchange` from the facts in an
`UpstreamError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from icr_proxy.http1.response_head import ResponseHead

# Why a connection to the API was closed.
CLOSES = (
    "idle",  # nobody used it for as long as an idle one is believed to be good
    "closed",  # the API closed it while it was idle
    "dirty",  # something came on it that was no answer, or perhaps its end, unseen until now
    "limit",  # to make room for a new one
    "age",  # it is older than `upstream.max_connection_age`
    "trust",  # it was verified against authorities that `upstream.ca_file` no longer holds
    "last",  # the API's answer said that it is the last, or had no other end
    "unsent",  # the API answered before it had taken the whole request
    "error",  # it broke, or took too long
    "left",  # the caller left, or the answer was not wanted to its end
    "stop",  # the proxy stopped
)


class UpstreamBody(Protocol):
    """A request body, read once, chunk by chunk."""

    async def read(self) -> bytes:
        """Give the next bytes, or nothing at the end."""


class HeaderSource(Protocol):
    """Header lines to be sent; a request that waits for a connection should hold little."""

    def write(self) -> bytes:
        """Give them as they are sent, each with its end; asked when there is a connection."""


class UpstreamRequest(msgspec.Struct, kw_only=True, eq=False):
    """What is sent. Framing is not among the headers: the connection makes its own."""

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()
    lines: HeaderSource | None = None
    """More headers, which come before `headers`."""
    body: UpstreamBody | None = None
    length: int | None = None
    """Length of the body in bytes; `None` with a body means chunked, without one no framing."""
    is_write: bool = False
    """Never sent twice, so it takes only a connection proven a moment ago."""
    fresh: bool = False
    """Do not reuse a connection: the last one failed under us."""
    sent: bool = False
    """Whether any byte of it may have left; the engine says so."""

    __repr__ = object.__repr__  # not what is secret in it


class UpstreamResponse(Protocol):
    """The head of an answer, with its body still to come."""

    status: int
    head: ResponseHead
    reused: bool

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header lines one by one."""

    @property
    def is_read(self) -> bool:
        """Whether all of the body came and was taken."""

    def read_nowait(self) -> bytes:
        """Give what has arrived of the body without waiting; perhaps nothing yet."""

    async def read(self) -> bytes:
        """Give the next bytes of the body, or nothing at its end.

        Raises:
            UpstreamBrokenError: the body was cut off.
            UpstreamTimeoutError: nothing came for `upstream.timeouts.idle`.
        """

    def close(self) -> None:
        """Give the connection back if the answer was read to the end, else break it."""


class Upstream(Protocol):
    """The engine behind `forwarder` and `token_exchange`."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send once and wait for the head of the answer; raise an `UpstreamError` otherwise."""
