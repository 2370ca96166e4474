"""One connection of a caller: bytes become requests in their order, each answered in its turn.

aiohttp hands out the bodies. Its parser is not used: it loses the requests before a malformed one,
is lenient in other places than RFC 9112, and is a different one where it was installed without its
extensions. `intake` reads instead, and `turns` serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestPayloadError

from icr_proxy.errors import CallerTimeoutError, ProxyError
from icr_proxy.http1.request_parser import Intake
from icr_proxy.net.transport import NOBODY, peer_behind
from icr_proxy.server.connection import WAITING_MOST, Turns
from icr_proxy.server.request import Request, unreadable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aiohttp.web_server import Server

    from icr_proxy.config.inbound_models import LimitsConfig
    from icr_proxy.http1.request_head import HeadRules, Sections
    from icr_proxy.net.peers import Peer
    from icr_proxy.server.connection import Refuse
    from icr_proxy.server.limits import Place

BUFFER = 65536  # bytes of a body that wait for the handler; twice that, and it is not read on


class CallerConnection(Turns):
    """A connection as the event loop sees it."""

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
        sections: Sections,
        limits: LimitsConfig,
        place: Place | None = None,
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
        self._intake = Intake(rules, sections)
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
        self.peer = peer_behind(transport, named=self._named)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Clean up, and see how it ends."""
        if self._place is not None:
            self._place.leave()
        self._stop_head_timer()
        self._intake.forget()
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
                intake.drop()
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
        self._intake.drop()
        self._stop_head_timer()
        super()._discard()

    def _end_with(self, error: ProxyError) -> None:
        """Answer so when its turn comes, and hear nothing more."""
        self._intake.drop()
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
