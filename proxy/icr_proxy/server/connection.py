"""The connection of a client: received bytes become requests, answered one after the other.

One task serves all requests of a connection. The next head is parsed when the request before it is
answered, so that whatever a client pipelines stays unparsed, and bounded, in one place.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

import msgspec

from icr_proxy.errors import (
    BadRequestError,
    CallerError,
    CallerGoneError,
    CallerTimeoutError,
    ProxyError,
)
from icr_proxy.http1.request_head import END, HeaderCache, HeadRules
from icr_proxy.http1.request_parser import RequestParser
from icr_proxy.net.transport import (
    NOBODY,
    PausedTransports,
    peer_of_transport,
    reset_connection,
)
from icr_proxy.server.body_stream import BodyStream
from icr_proxy.server.request import Request, unreadable

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable

    from icr_proxy.config.inbound_models import LimitsConfig
    from icr_proxy.http1.request_head import RequestHead
    from icr_proxy.net.peers import Peer
    from icr_proxy.server.limits import ConnectionSlot
    from icr_proxy.server.response import ResponseWriter

    Respond = Callable[[Request], Awaitable[ResponseWriter]]
    Refuse = Callable[[Request, ProxyError], Awaitable[ResponseWriter]]

# A lingering close (RFC 9112, 9.6): what a client sends after its response is read and discarded,
# for so long in all, with pauses of so long, and so many bytes at most.
LINGER_SECONDS = 8.0
LINGER_IDLE_SECONDS = 2.0
LINGER_BYTES = 256 * 1024 * 1024
# A connection holds at most 64 KiB of input that no handler has read, beyond a head that is not
# whole: so much of a body, and so much behind it or behind the request that is being served.
BODY_MOST = 48 * 1024
BACKLOG_MOST = 16 * 1024
UNREAD_LOW = BACKLOG_MOST // 2  # where a connection that stopped reading goes on


class ListenerContext(msgspec.Struct, kw_only=True, eq=False):
    """What all connections of one listener share."""

    respond: Respond
    refuse: Refuse
    rules: HeadRules
    limits: LimitsConfig
    logger: logging.Logger
    header_cache: HeaderCache = msgspec.field(default_factory=HeaderCache)
    buffer: memoryview = msgspec.field(default_factory=lambda: memoryview(bytearray(BODY_MOST)))
    """Where the event loop puts what it reads; it is empty again before it reads elsewhere."""
    connections: dict[ClientConnection, None] = msgspec.field(default_factory=dict)
    """The open connections, the oldest first."""
    paused: PausedTransports = msgspec.field(default_factory=PausedTransports)


class ClientConnection(asyncio.BufferedProtocol):
    """One connection of a client."""

    __slots__ = (
        "_body",
        "_context",
        "_count",
        "_discarded",
        "_drained",
        "_ending",
        "_followed",
        "_idle_timer",
        "_idle_until",
        "_is_draining",
        "_is_paused",
        "_left",
        "_loop",
        "_lost",
        "_named",
        "_parser",
        "_slot",
        "_task",
        "_waiter",
        "is_tls",
        "peer",
        "transport",
        "writing_paused",
    )

    def __init__(
        self,
        context: ListenerContext,
        *,
        slot: ConnectionSlot | None = None,
        named: str | None = None,
    ) -> None:
        """Serve a client; `named` is its address if a load balancer connects for it.

        The connection releases its `slot` when it is lost.
        """
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._parser = RequestParser(context.rules, context.header_cache)
        self._slot = slot
        self._named = named
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        """Waits for the next bytes of a head."""
        self._body: BodyStream | None = None
        """The body of the request that is being served."""
        self._count = 0
        """Number of requests served, the current one included."""
        self._is_paused = False
        self._is_draining = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_until = 0.0
        self._drained: asyncio.Future[None] | None = None
        """Waits until the client takes what is written."""
        self._left: asyncio.Future[None] | None = None
        """Waits for the client's end of the connection, during a lingering close."""
        self._discarded = 0
        """Bytes that arrived and belong to no request."""
        self._ending: asyncio.Transport | None = None
        """The transport after it was closed, until it is lost: it may still have to send."""
        self._lost: asyncio.Future[None] | None = None
        self._followed: tuple[int, Callable[[bool], None]] | None = None
        self.transport: asyncio.Transport | None = None
        """The way to the client, until it is closed."""
        self.writing_paused = False
        """Whether the client is slow to take what is written."""
        self.is_tls = False
        self.peer = NOBODY
        """The client; known once the connection is made, the TLS handshake included."""

    # -- what the event loop calls ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        self.transport = cast("asyncio.Transport", transport)
        self.peer = peer_of_transport(transport, named=self._named)
        self.is_tls = transport.get_extra_info("sslcontext") is not None
        self._context.connections[self] = None
        self._start_idle_timer()
        self._task = self._loop.create_task(self._serve(), name="client connection")

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the room decides
        """Return where to put what is read: as much as there is room for."""
        buffer, parser = self._context.buffer, self._parser
        if parser.framing is not None:
            return buffer[: max(BODY_MOST - self._unread, 1)]
        return buffer if parser.is_deaf else buffer[:BACKLOG_MOST]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        parser = self._parser
        if parser.framing is None and (parser.is_deaf or self._is_draining):
            self._count_discarded(nbytes)
            return
        parser.receive(bytes(self._context.buffer[:nbytes]))
        if parser.framing is not None:
            self._feed_body()
            if self._unread >= BODY_MOST:
                self._pause_reading()
        elif self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
        elif len(parser.held) >= BACKLOG_MOST:
            self._pause_reading()

    def eof_received(self) -> None:
        """Treat a client that closes its sending side as one that left, as other proxies do.

        The event loop closes the connection, and the request is cancelled. A client that would
        read on (`nc -N`) looks just the same.
        """
        self._end_linger()

    def pause_writing(self) -> None:
        """Note that the client is slow to take what is written."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """Go on writing."""
        self.writing_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the request that is being served, and clean up."""
        if self._slot is not None:
            self._slot.release()
        self._resume_reading()
        self.transport = self._ending = self._left = None
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._body is not None:
            self._body.fail(partial(CallerGoneError, "the caller closed the connection"))
            self._body = None
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the connection is lost"))
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        self._report_followed(exc)
        self._parser.discard()
        connections, task, self._task = self._context.connections, self._task, None
        if task is not None:
            task.cancel()
            task.add_done_callback(lambda _: connections.pop(self, None))

    # -- serving ----------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Serve one request after the other until the connection ends."""
        try:
            while not self._is_draining:
                request = await self._next_request()
                if self.transport is None or not await self._serve_request(request):
                    break
                self._start_idle_timer()
                if self._parser.held:  # other connections have their turn before the next request
                    await asyncio.sleep(0)
        finally:
            self.force_close()

    async def _next_request(self) -> Request:
        """Wait for the next request; one that cannot be read carries the error."""
        try:
            head = await self._next_head()
        except ProxyError as error:
            self._parser.discard()
            return unreadable(self, error)
        body = None
        if self._parser.framing is not None:
            body = self._body = BodyStream(self._resume_if_low)
            self._feed_body()
        elif self._parser.is_deaf:
            self._discard_held()
        self._resume_if_low()
        return Request(head, self, body)

    async def _next_head(self) -> RequestHead:
        parser = self._parser
        head = parser.next_head() if parser.held else None
        while head is None and not parser.held:
            await self._receive()
            head = parser.next_head()
        if head is not None:
            return head
        try:
            async with asyncio.timeout(self._context.limits.head_timeout):
                while head is None:
                    await self._receive()
                    head = parser.next_head()
        except TimeoutError:
            raise CallerTimeoutError("the head of the request did not come in time") from None
        return head

    async def _receive(self) -> None:
        """Wait until the next bytes of a head have arrived."""
        if self._is_draining:
            self.force_close()
        self._resume_reading()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _serve_request(self, request: Request) -> bool:
        """Answer a request; return whether the connection goes on."""
        context = self._context
        self._count += 1
        try:
            if request.broken is None:
                response = await context.respond(request)
            else:
                response = await context.refuse(request, request.broken)
        except CallerError:
            return False  # the client left, or does not read
        except Exception:  # another response would follow what was sent
            context.logger.exception("a request could not be ended")
            return False
        sends_on = request.broken is not None or request.is_unfinished
        if self._body is not None:
            self._body.fail(partial(CallerGoneError, "the request is over"))
            self._body = None
        if sends_on or self._is_draining or not response.keep_alive:
            if sends_on or request.keep_alive:
                await self._linger(sends_on=sends_on)
            return False
        return True

    def when_followed(self, hear: Callable[[bool], None]) -> None:
        """Report what follows the response just given: the end by a reset (True), or anything else.

        Anything else is reported when somebody asks anew, or in the end.
        """
        before, self._followed = self._followed, (self._count, hear)
        if before is not None:
            before[1](False)

    def _report_followed(self, exc: BaseException | None) -> None:
        followed, self._followed = self._followed, None
        if followed is not None:
            number, hear = followed
            is_last = number == self._count and END not in self._parser.held
            hear(is_last and isinstance(exc, ConnectionError))

    # -- reading ----------------------------------------------------------------------------------

    @property
    def _unread(self) -> int:
        """Number of received bytes that no handler has read."""
        held = len(self._parser.held)
        return held if self._body is None else held + self._body.unread

    def _feed_body(self) -> None:
        """Pass what was received of the body on to its reader."""
        body = self._body
        if body is None:
            return
        try:
            piece, is_whole = self._parser.next_piece()
        except ProxyError:
            body.fail(partial(BadRequestError, "the request body is malformed"))
            return
        body.feed(piece, is_whole=is_whole)
        if is_whole and self._parser.is_deaf:
            self._discard_held()

    def _pause_reading(self) -> None:
        if not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()
            self._context.paused.add(self.transport, self._discard_input)

    def _resume_reading(self) -> None:
        transport = self.transport or self._ending
        if self._is_paused and transport is not None:
            self._is_paused = False
            self._context.paused.remove(transport)
            if not transport.is_closing():
                transport.resume_reading()

    def _resume_if_low(self) -> None:
        if self._is_paused and self._unread <= UNREAD_LOW:
            self._resume_reading()

    def _discard_input(self) -> None:
        """Read on and discard: the client left, or its input belongs to no request any more."""
        self._discard_held()
        self._resume_reading()

    def _discard_held(self) -> None:
        self._count_discarded(len(self._parser.held))
        self._parser.discard()

    def _count_discarded(self, size: int) -> None:
        self._discarded += size
        if self._discarded > LINGER_BYTES:
            self._end_linger()

    # -- writing ----------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait while the client does not take what is written."""
        if self.writing_paused and self.transport is not None:
            if self._drained is None or self._drained.done():
                self._drained = self._loop.create_future()
            await self._drained

    @property
    def unsent(self) -> int:
        """How many bytes of responses the system has not taken yet; over TLS, at least so many."""
        transport = self._ending or self.transport
        return transport.get_write_buffer_size() if transport is not None else 0

    # -- ending -----------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether the connection waits for the next request."""
        return self._waiter is not None and not self._waiter.done()

    def _start_idle_timer(self) -> None:
        """Give the client time for its next request; one timer serves all of them."""
        self._idle_until = self._loop.time() + self._context.limits.idle_timeout
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_at(self._idle_until, self._check_idle)

    def _check_idle(self) -> None:
        """Close if idle; a head that has begun has a time limit of its own."""
        self._idle_timer = None
        if self._loop.time() < self._idle_until:
            self._idle_timer = self._loop.call_at(self._idle_until, self._check_idle)
        elif self.is_idle and not self._parser.held:
            self.force_close()

    async def _linger(self, *, sends_on: bool) -> None:
        """Read on and discard for a while before closing: the client may still be sending.

        Closed with unread bytes, the connection would be reset, and a client that reads only after
        it has sent would lose the response. Over TLS, only closing tells a client that there is no
        more, so there it must be known that the client `sends_on`.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            with suppress(OSError):  # the client may have ended the connection by now
                transport.write_eof()
        elif not sends_on:
            return
        self._left = left = self._loop.create_future()
        self._discard_input()
        end, before = self._loop.time() + LINGER_SECONDS, -1
        while self._discarded != before and not left.done():
            before = self._discarded
            rest = max(0.0, end - self._loop.time())
            await asyncio.wait((left,), timeout=min(rest, LINGER_IDLE_SECONDS))
            if not rest:
                break
        self._left = None

    def _end_linger(self) -> None:
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    def close(self) -> None:
        """Close after the request that is being served; at once if there is none."""
        self._is_draining = True
        if self.is_idle:
            self.force_close()

    def force_close(self) -> None:
        """Close now, and do not wait for ever for the client to take what was written."""
        transport, self.transport = self.transport, None
        if self._waiter is not None:
            self._waiter.cancel()
        if transport is None:
            return
        self._ending = transport
        transport.close()
        if transport.get_write_buffer_size():
            self._loop.call_later(self._context.limits.body_timeout, reset_connection, transport)

    async def shutdown(self, seconds: float) -> None:
        """Close; a request that is being served has so many seconds."""
        self.close()
        if self._task is not None and not self._task.done():
            task = self._task
            await asyncio.wait((task,), timeout=seconds)
            task.cancel()
        self.force_close()

    async def until_sent(self) -> None:
        """Wait for the end of a connection that ends, if there is something to send before it."""
        if self.unsent:
            await self._until_lost()

    async def until_left(self) -> None:
        """Wait for the end of a connection whose client may still be sending."""
        if self._left is not None:
            await self._until_lost()

    async def _until_lost(self) -> None:
        self._lost = self._loop.create_future()
        await self._lost


def peer_of(request: Request) -> Peer:
    """Return who sent a request."""
    return request.protocol.peer
