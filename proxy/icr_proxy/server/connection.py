"""One connection of a client: bytes become requests, each answered in its turn.

aiohttp's connection underneath keeps the account with its server and the transport. Its own serving
is not used: it has a task, a record with a URL, a dictionary of headers and a writer for each
request, and an answer of its own for handlers that fail, which would follow one already sent.

aiohttp hands out the bodies. Its parser is not used: it loses the requests before a malformed one,
is lenient in other places than RFC 9112, and is a different one where it was installed without its
extensions. `request_parser` reads instead.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import PayloadAccessError, RequestHandler, RequestPayloadError

from icr_proxy.errors import CallerError, CallerTimeoutError, ProxyError
from icr_proxy.http1.request_parser import RequestParser
from icr_proxy.net.transport import NOBODY, peer_of_transport, reset_connection
from icr_proxy.server.request import Request, unreadable

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Awaitable, Callable

    from aiohttp.web import Server

    from icr_proxy.config.inbound_models import LimitsConfig
    from icr_proxy.http1.request_head import HeaderCache, HeadRules
    from icr_proxy.net.peers import Peer
    from icr_proxy.server.limits import ConnectionSlot
    from icr_proxy.server.response import ResponseWriter

    Respond = Callable[[Request], Awaitable[ResponseWriter]]
    Refuse = Callable[[Request, ProxyError], Awaitable[ResponseWriter]]

# A lingering close (RFC 9112, 9.6): what a caller sends after its answer is read and discarded, for
# so long in all, with pauses of so long, and so many bytes at most.
LINGER_SECONDS = 8.0
LINGER_IDLE_SECONDS = 2.0
LINGER_BYTES = 256 * 1024 * 1024
WAITING_MOST = 8  # requests of a connection that wait for their turn; then it is not read from


class NoParser:
    """What aiohttp tells its parser, where there is none."""

    def pause_reading(self) -> None:
        """The transport is paused as well."""


class SequentialConnection(RequestHandler):
    """A client connection that serves its queued requests one after the other."""

    __slots__ = ("_discarded", "_ending", "_left", "_lost", "_patience", "_refuse", "_waiting")

    def __init__(
        self,
        server: Server,
        *,
        refuse: Refuse,
        idle_timeout: float,
        patience: float,
        **options: Any,
    ) -> None:
        """Serve; an answer that is written has `patience` seconds to be taken in the end."""
        super().__init__(server, keepalive_timeout=idle_timeout, **options)
        self._parser = cast("Any", NoParser())
        self._max_msg_queue_size, self._msg_queue_resume_size = WAITING_MOST, WAITING_MOST // 2
        self._waiting: deque[Request] = cast("Any", self._messages)
        self._refuse = refuse
        self._patience = patience
        self._left: asyncio.Future[None] | None = None
        """Whom `_linger` waits for, while it does."""
        self._discarded = 0
        """Bytes that arrived and belong to no request."""
        self._ending: asyncio.Transport | None = None
        """What is closed, and has still to send something."""
        self._lost: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Answer one request after the other, all of them in the task of the connection."""
        respond = cast("Respond", self._request_handler)
        try:
            while not self._force_close:
                if not self._waiting:
                    self._waiter = self._loop.create_future()
                    try:
                        await self._waiter
                    finally:
                        self._waiter = None
                request = self._begin_turn()
                try:
                    if request.broken is None:
                        answer = await respond(request)
                    else:
                        answer = await self._refuse(request, request.broken)
                except CallerError:
                    break  # nobody is there any more, or nobody reads
                except Exception as error:  # noqa: BLE001  # another answer would follow what was sent
                    self.log_exception("a request could not be ended", exc_info=error)
                    break
                finally:
                    self._end_turn()
                sends_on = request.broken is not None or request.is_unfinished
                if request.body_exists:
                    request.content.set_exception(PayloadAccessError())
                if sends_on or self._close or not answer.keep_alive:
                    if sends_on or request.keep_alive:
                        await self._linger(sends_on=sends_on)
                    break
                self._stay_open()
        except BaseException:
            self.force_close()
            raise
        self._finish()

    def _begin_turn(self) -> Request:
        request = self._waiting.popleft()
        if self._buffer_paused and len(self._waiting) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        cast("Server", self._manager).requests_count += 1
        self._current_request = request  # type: ignore[assignment]  # all it does is cancel it
        self._request_in_progress = True
        return request

    def _end_turn(self) -> None:
        self._current_request, self._request_in_progress = None, False
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)

    def _finish(self) -> None:
        """Close, but do not wait for ever for the caller to take what was written."""
        if self.transport is not None and not self._force_close:
            self._task_handler = None
            self.transport.close()
        self._end_in_time(self.transport)

    def _stay_open(self) -> None:
        """Wait for the next request, but not for ever: one timer looks when the last answer was."""
        if self._force_close:
            return
        at = self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(at, self._process_keepalive)

    async def drain(self) -> None:
        """Wait while the caller does not take what is written."""
        if self.transport is not None:
            await self._drain_helper()

    async def _linger(self, *, sends_on: bool) -> None:
        """Read on and discard for a while before closing: the caller may still be sending.

        Closed with unread bytes, the connection would be reset, and a caller that reads only after
        it has sent would lose the answer. Over TLS, only closing tells a caller that there is no
        more, so there it must be known that the caller `sends_on`.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            with suppress(OSError):  # the caller may have ended the connection by now
                transport.write_eof()
        elif not sends_on:
            return
        self._left = left = self._loop.create_future()
        self._discard()
        end, before = self._loop.time() + LINGER_SECONDS, -1
        while self._discarded != before and not left.done():
            before = self._discarded
            rest = max(0.0, end - self._loop.time())
            await asyncio.wait((left,), timeout=min(rest, LINGER_IDLE_SECONDS))
            if not rest:
                break
        self._left = None

    def _discard(self) -> None:
        """Take nothing for a request any more, and read on if reading was paused."""
        self._waiting.clear()
        if self._reading_paused:
            self.resume_reading()
        if self._buffer_paused:
            self._resume_reading_if_drained()

    def _note_discarded(self, size: int) -> None:
        self._discarded += size
        if self._discarded > LINGER_BYTES:
            self._note_left()

    def _note_left(self) -> None:
        """End the lingering, if there is any."""
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    def force_close(self) -> None:
        """Close, and do not wait for ever for the caller to take what was written."""
        transport = self.transport
        super().force_close()
        self._end_in_time(transport)

    def _end_in_time(self, transport: asyncio.Transport | None) -> None:
        if transport is not None and transport.get_write_buffer_size():
            self._ending = transport
            self._loop.call_later(self._patience, reset_connection, transport)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being served, nor waits for its turn."""
        return self._waiter is not None and not self._waiting

    @property
    def unsent(self) -> int:
        """How many bytes of answers the system has not taken yet; over TLS, at least so many."""
        transport = self._ending or self.transport
        return transport.get_write_buffer_size() if transport is not None else 0

    async def until_sent(self) -> None:
        """Wait for the end of a connection that ends, if there is something to send before it."""
        if self.unsent:
            await self._until_lost()

    async def until_left(self) -> None:
        """Wait for the end of a connection whose caller may still be sending."""
        if self._left is not None:
            await self._until_lost()

    async def _until_lost(self) -> None:
        self._lost = self._loop.create_future()
        await self._lost

    def connection_lost(self, exc: BaseException | None) -> None:
        """Clean up."""
        super().connection_lost(exc)
        self._ending = self._left = None
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)

    def close(self) -> None:
        """End after the request it is on; at once if there is none, where aiohttp goes deaf."""
        super().close()
        if not self._waiting and (self._waiter is not None or not self._request_count):
            self.force_close()


BUFFER = 65536  # bytes of a body that wait for the handler; twice that, and it is not read on


class ClientConnection(SequentialConnection):
    """A client connection: parses what arrives and queues the requests."""

    __slots__ = (
        "_body",
        "_followed",
        "_head_timer",
        "_intake",
        "_limits",
        "_named",
        "_place",
        "peer",
    )

    def __init__(
        self,
        server: Server,
        *,
        refuse: Refuse,
        rules: HeadRules,
        sections: HeaderCache,
        limits: LimitsConfig,
        place: ConnectionSlot | None = None,
        named: str | None = None,
        **options: Any,
    ) -> None:
        """Speak with a caller; `named` is its address if a load balancer connects for it.

        In the end, it leaves its `place`.
        """
        super().__init__(
            server,
            refuse=refuse,
            idle_timeout=limits.idle_timeout,
            patience=limits.body_timeout,
            **options,
        )
        self._intake = RequestParser(rules, sections)
        self._limits = limits
        self._place = place
        self._named = named
        self._body: StreamReader = EMPTY_PAYLOAD
        """The body that is being read."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._followed: tuple[int, Callable[[bool], None]] | None = None
        self.peer = NOBODY
        """Who calls; known once the connection is made, the TLS handshake included."""

    # -- what the event loop calls ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See who calls, once for all requests that come this way."""
        self.peer = peer_of_transport(transport, named=self._named)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Clean up, and see how it ends."""
        if self._place is not None:
            self._place.release()
        self._stop_head_timer()
        self._intake.clear()
        super().connection_lost(exc)
        followed, self._followed = self._followed, None
        if followed is not None:
            number, hear = followed
            hear(isinstance(exc, ConnectionError) and number == self._request_count)

    def when_followed(self, hear: Callable[[bool], None]) -> None:
        """Say what comes after the answer just given: the end by a reset (True), or anything else.

        Anything else is told when somebody asks anew, or in the end.
        """
        before, self._followed = self._followed, (self._request_count, hear)
        if before is not None:
            before[1](False)

    def data_received(self, data: bytes) -> None:
        """Take what arrived; called with nothing when there is room again."""
        intake = self._intake
        intake.receive(data)
        while intake.held and not self._reading_paused:
            if intake.framing is not None:
                self._read_body()
            elif intake.is_deaf or self._close or self._force_close:
                self._note_discarded(len(intake.held))
                intake.discard()
            elif len(self._waiting) >= WAITING_MOST:
                if not self._buffer_paused:
                    self._pause_reading_for_buffer()
                return
            elif not self._read_head():
                return

    def eof_received(self) -> None:
        """Take a caller that closes its sending side for one that leaves, as other proxies do.

        What it asked for is cancelled. One that would read on (`nc -N`) looks just the same.
        """
        self._note_left()

    # -- reading ----------------------------------------------------------------------------------

    def _read_head(self) -> bool:
        """Begin the next request, or end with an error; not yet, if its head is not whole."""
        try:
            head = self._intake.next_head()
        except ProxyError as error:
            self._end_with(error)
            return True
        if head is None:
            if self._intake.held and self._head_timer is None:
                self._head_timer = self._loop.call_later(self._limits.head_timeout, self._late)
            return False
        if self._head_timer is not None:
            self._stop_head_timer()
        body = EMPTY_PAYLOAD
        if self._intake.framing is not None:
            body = self._body = StreamReader(self, BUFFER, loop=self._loop)
        self._enqueue(Request(head, self, body))
        return True

    def _read_body(self) -> None:
        try:
            piece, is_whole = self._intake.next_piece()
        except ProxyError:
            self._body.set_exception(RequestPayloadError("malformed"))
            self._body.feed_eof()
            return
        if piece:
            self._body.feed_data(piece)
        if is_whole:
            self._body.feed_eof()

    def _enqueue(self, request: Request) -> None:
        self._request_count += 1
        self._waiting.append(request)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- ending -----------------------------------------------------------------------------------

    def _discard(self) -> None:
        """Take nothing for a request any more, neither what is held here."""
        self._intake.discard()
        self._stop_head_timer()
        super()._discard()

    def _end_with(self, error: ProxyError) -> None:
        """Answer so when its turn comes, and hear nothing more."""
        self._intake.discard()
        self._stop_head_timer()
        self._enqueue(unreadable(self, EMPTY_PAYLOAD, error))

    def _late(self) -> None:
        self._head_timer = None
        self._end_with(CallerTimeoutError("the head of the request did not come in time"))

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _process_keepalive(self) -> None:
        """Close if idle; a head that has begun has a time limit of its own."""
        if self._head_timer is None:
            super()._process_keepalive()
        else:
            self._keepalive_handle = None


def peer_of(request: Request) -> Peer:
    """Say who sent a request: where its connection comes from, what its certificate names."""
    return request.protocol.peer
