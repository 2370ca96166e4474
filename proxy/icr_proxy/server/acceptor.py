"""Accepts connections on one listening socket; each counts against its limit from then on.

The event loops' own servers count nothing before a TLS handshake is over, and one of them (uvloop)
stops listening for ever when the system as a whole has no descriptor left.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from icr_proxy.net.proxy_protocol import ProxiedSource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from icr_proxy.server.limits import ConnectionLimit, ConnectionSlot

BATCH = 32  # connections accepted in one round of the event loop
BATCH_BEYOND = 8  # where each may be beyond the limit until that round is over
PAUSE_SECONDS = 0.25  # until accepting is tried again when no descriptor was left
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})  # accept(2)
OF_ITSELF = ProxiedSource(None)
TELL_SECONDS = 60.0  # between two reports of that


class Arrival:
    """A connection on its way in."""

    __slots__ = ("is_ending", "is_handed_over", "place", "protocol", "socket")

    def __init__(self, found: socket.socket, place: ConnectionSlot) -> None:
        self.socket = found
        self.place = place
        self.is_ending = False
        """Whether it was told to end."""
        self.is_handed_over = False
        """Whether the event loop has the socket, and closes it."""
        self.protocol: asyncio.BaseProtocol | None = None
        """What serves the connection; it has a `transport` once the connection is made."""

    def end(self, task: asyncio.Task[None]) -> None:
        """End it, wherever its task is, unless it is served already.

        A connection is made a moment before its task goes on, and then its protocol ends it: it
        may be answering a request. In the event loop's hands it must end by itself: one that is
        cancelled when the connection has just been made is closed by uvloop without a
        `connection_lost`.
        """
        if getattr(self.protocol, "transport", None) is not None:
            return
        self.is_ending = True
        if self.is_handed_over:
            with suppress(OSError):  # closed already
                self.socket.shutdown(socket.SHUT_RDWR)
        else:
            task.cancel()

    def close(self) -> None:
        """Close what nobody else closes."""
        if not self.is_handed_over:
            self.socket.close()
            self.place.release()


class Acceptor:
    """One listening socket. Whoever finds no place is closed at once."""

    def __init__(
        self,
        listening: socket.socket,
        *,
        serve: Callable[[str | None, ConnectionSlot], asyncio.BaseProtocol],
        places: ConnectionLimit,
        options: dict[str, Any],
        identify: Callable[[socket.socket], Awaitable[ProxiedSource | None]] | None = None,
        evict: Callable[[], bool] | None = None,
        exhausted: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to accept.

        `serve` makes the protocol for a caller's address, or for that of the connection itself;
        `options` are those of `connect_accepted_socket`. `identify` reads who calls from the bare
        socket, or says that nobody is let in. `evict` ends an idle connection in favour of a new
        one, and says if there was one. `exhausted` hears that no descriptor was left, once a
        minute at most.
        """
        self._listening = listening
        self._serve = serve
        self._places = places
        self._options = options
        self._identify = identify
        self._evict = evict
        self._shakes_hands = identify is not None or options.get("ssl") is not None
        self._exhausted = exhausted
        self._loop = asyncio.get_running_loop()
        self._entering: dict[asyncio.Task[None], Arrival] = {}  # the oldest first
        self._pause: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")
        listening.setblocking(False)
        # Accepted sockets inherit both (socket(7), tcp(7)).
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if listening.family != socket.AF_UNIX:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(listening.fileno(), self._accept_some)

    def close(self) -> None:
        """Take no new connections; end those that are in their handshake."""
        if self._listening.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()
        for task, arrival in self._entering.items():
            arrival.end(task)

    def _accept_some(self) -> None:
        for _ in range(BATCH if self._evict is None else BATCH_BEYOND):
            try:
                found, _ = self._listening.accept()
            except BlockingIOError:
                return
            except ConnectionError:  # the caller has left already
                continue
            except OSError as error:
                self._wait(error)
                return
            place = self._places.acquire(beyond=self._places.is_full and self._makes_room())
            if place is None:
                found.close()
                continue
            found.setblocking(False)
            arrival = Arrival(found, place)
            task = self._loop.create_task(self._enter(arrival), name="accept")
            self._entering[task] = arrival
            task.add_done_callback(self._entered)

    def _makes_room(self) -> bool:
        """End the oldest handshake, or else an idle connection, if that is done here."""
        if self._evict is None:
            return False
        if self._shakes_hands:
            for task, arrival in self._entering.items():
                if not arrival.is_ending:
                    arrival.end(task)
                    return True
        return self._evict()

    def _wait(self, error: OSError) -> None:
        """Stop accepting for a moment: the socket stays readable, and would be tried for ever."""
        self._loop.remove_reader(self._listening.fileno())
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._go_on)
        now = self._loop.time()
        if error.errno in EXHAUSTED and now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self._exhausted()

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening.fileno(), self._accept_some)

    async def _enter(self, arrival: Arrival) -> None:
        """Read who calls, shake hands, and hand over; then the connection has the place."""
        found, place = arrival.socket, arrival.place
        source = await self._identify(found) if self._identify is not None else OF_ITSELF
        if source is None:
            return
        arrival.is_handed_over = True

        def serve() -> asyncio.BaseProtocol:
            protocol = arrival.protocol = self._serve(source.address, place)
            return protocol

        try:
            await self._loop.connect_accepted_socket(serve, found, **self._options)
        except OSError:  # a handshake that fails concerns nobody else
            place.release()
        except BaseException:
            place.release()
            raise

    def _entered(self, task: asyncio.Task[None]) -> None:
        """Clean up behind whoever was not let in, a task that never began to run included."""
        self._entering.pop(task).close()
