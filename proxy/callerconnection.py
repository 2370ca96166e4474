"""aiohttp's connection of a caller, with our answer to a request that cannot be parsed."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.web_protocol import RequestHandler

from proxy.errors import (
    BadRequestError,
    HeadersTooLargeError,
    InstallationInvalidError,
    ProxyError,
    UriTooLongError,
)
from proxy.peers import LOCAL, Peer, certificate_names, plain_address

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from aiohttp import StreamReader

    from proxy.answers import Answer

    Respond = Callable[[web.BaseRequest], Awaitable[Answer]]
    Refuse = Callable[[web.BaseRequest, ProxyError], Awaitable[Answer]]


class CallerConnection(RequestHandler):
    """aiohttp's connection, with our answer to a request that cannot be parsed."""

    __slots__ = ("_body", "_followed", "_named", "_refuse", "_tag", "peer")

    def __init__(
        self,
        server: web.Server,
        *,
        refuse: Refuse,
        tag: str,
        named: str | None = None,
        **options: Any,
    ) -> None:
        """Speak with a caller; `named` is its address if a load balancer connects for it."""
        super().__init__(server, **options)
        self._refuse = refuse
        self._tag = tag.lower()
        self._named = named
        self._body: StreamReader | None = None
        self._followed: tuple[int, Callable[[bool], None]] | None = None
        self.peer = NOBODY
        """Who calls; known once the connection is made, the TLS handshake included."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See who calls, once for all requests that come this way."""
        self.peer = peer_behind(transport, named=self._named)
        super().connection_made(transport)

    def when_followed(self, hear: Callable[[bool], None]) -> None:
        """Say what comes after the answer just given: the end by a reset (True), or anything else.

        Anything else is told when somebody asks anew, or in the end.
        """
        before, self._followed = self._followed, (self._request_count, hear)
        if before is not None:
            before[1](False)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See how it ends."""
        super().connection_lost(exc)
        followed, self._followed = self._followed, None
        if followed is not None:
            number, hear = followed
            hear(isinstance(exc, ConnectionError) and number == self._request_count)

    def data_received(self, data: bytes) -> None:
        """Parse; tell the reader of a body that it is malformed, which aiohttp forgets."""
        super().data_received(data)
        for message, body in self._messages:
            if isinstance(message, RawRequestMessage):
                self._body = body
            elif self._body is not None and not self._body.is_eof():
                self._body.set_exception(web.RequestPayloadError("malformed"))
                self._body.feed_eof()

    def close(self) -> None:
        """End after the request it is on; at once if there is none, where aiohttp goes deaf.

        To the rest of a body, too: so it ends only when that is here.
        """
        under_way = self._messages or self._current_request is not None
        if under_way and self._body is not None and not self._body.is_eof():
            self._body.on_eof(super().close)
            return
        super().close()
        if not self._messages and (self._waiter is not None or not self._request_count):
            self.force_close()

    def handle_error(self, *_args: Any, **_options: Any) -> Any:
        """End the connection: aiohttp's own answer would follow one that was already sent."""
        raise ConnectionAbortedError

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Pass over a malformed body that was being read only to be thrown away."""
        if not isinstance(options.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **options)

    def _make_error_handler(self, err_info: Any) -> Any:
        error = parse_error(err_info.exc, tag=self._tag, uri_limit=self.max_line_size)

        async def answer(request: web.BaseRequest) -> Any:
            return await self._refuse(request, error)

        return answer


NOBODY = Peer(address="")
PEER = struct.Struct("3i")  # struct ucred: process, user, group


def peer_behind(transport: asyncio.BaseTransport, *, named: str | None) -> Peer:
    """Say who is at the other end."""
    return Peer(
        address=named if named is not None else connected_from(transport),
        names=certificate_names(transport.get_extra_info("peercert")),
    )


def connected_from(transport: asyncio.BaseTransport) -> str:
    """Give the address at the other end of the connection itself."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        return plain_address(name[0])
    return unix_peer(transport.get_extra_info("socket"))


def unix_peer(found: socket.socket | None) -> str:
    """Name the process that connected to a Unix socket, as the kernel knows it (unix(7))."""
    if found is None or found.family != socket.AF_UNIX:
        return ""
    process, user, _ = PEER.unpack(
        found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    )
    return f"{LOCAL}uid={user},pid={process}"


def peer_of(request: web.BaseRequest) -> Peer:
    """Say who sent a request: where its connection comes from, what its certificate names."""
    return cast("CallerConnection", request.protocol).peer


class CallerServer(web.Server):
    """aiohttp's low-level server, making our connections."""

    def __init__(self, respond: Respond, **options: Any) -> None:
        # The answer is written by `Answer`; of a response aiohttp uses three members, which it has.
        super().__init__(cast("Any", respond), handler_cancellation=True)
        self._options = options

    def __call__(self) -> RequestHandler:
        """Make the protocol of a new connection (called by the event loop)."""
        return self.connection(None)

    def connection(self, named: str | None) -> CallerConnection:
        """Make that of a connection which a load balancer makes for the caller `named`."""
        return CallerConnection(self, loop=self._loop, named=named, **self._options)


def parse_error(exc: BaseException, *, tag: str, uri_limit: int) -> ProxyError:
    """Say what was wrong with a request head, without repeating any of it."""
    if isinstance(exc, LineTooLong):
        # aiohttp tells the request line from a header only by the limit that was passed.
        if exc.args[1] == uri_limit:
            return UriTooLongError("the request target is longer than this proxy accepts")
        return HeadersTooLargeError("a header is longer than this proxy accepts")
    text = str(getattr(exc, "message", exc)).lower()
    if "too many headers" in text:
        return HeadersTooLargeError("the request has more headers than this proxy accepts")
    if isinstance(exc, BadHttpMessage) and f"{tag}:" in text:
        return InstallationInvalidError("the installation header holds characters it must not")
    return BadRequestError("the request is not valid HTTP/1.1")
