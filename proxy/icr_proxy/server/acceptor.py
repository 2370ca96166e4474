"""Accepts the connections of one listening socket; each counts against the limit from then on.

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
BATCH_BEYOND = 8  # the same where each may be beyond the limit until that round is over
PAUSE_SECONDS = 0.25  # until the next attempt to accept when no descriptor was left
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})  # accept(2)
DIRECT_SOURCE = ProxiedSource(None)
REPORT_SECONDS = 60.0  # between two reports that no descriptor was left


class PendingConnection:
    """An accepted connection before it is served: its PROXY header or TLS handshake is awaited."""

    __slots__ = ("is_ending", "is_handed_over", "protocol", "slot", "socket")

    def __init__(self, accepted: socket.socket, slot: ConnectionSlot) -> None:
        self.socket = accepted
        self.slot = slot
        self.is_ending = False
        """Whether `end` was called."""
        self.is_handed_over = False
        """Whether the event loop has the socket, and closes it."""
        self.protocol: asyncio.BaseProtocol | None = None
        """What serves the connection; it has a `transport` once the connection is made."""

    def end(self, task: asyncio.Task[None]) -> None:
        """End the connection, wherever its task is, unless it is served already.

        A connection is made a moment before its task goes on. From then on its protocol ends it,
        since it may be answering a request. During a handshake the socket is shut down and the
        task is not cancelled: if the connection has just been made, uvloop closes a cancelled one
        without a `connection_lost`.
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
        """Close the socket, unless the event loop does."""
        if not self.is_handed_over:
            self.socket.close()
            self.slot.release()


class Acceptor:
    """Acceptor of one listening socket; connections beyond the limit are closed at once."""

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

        `serve` makes the protocol for a client's address, or for that of the connection itself;
        `options` are those of `connect_accepted_socket`. `identify` reads the client's address
        from the bare socket, or returns None if the connection is refused. `evict` ends an idle
        connection in favour of a new one, and returns whether there was one. `exhausted` is called
        when no descriptor was left, once a minute at most.
        """
        self._listening = listening
        self._serve = serve
        self._places = places
        self._options = options
        self._identify = identify
        self._evict = evict
        self._has_handshake = identify is not None or options.get("ssl") is not None
        self._exhausted = exhausted
        self._loop = asyncio.get_running_loop()
        self._pending: dict[asyncio.Task[None], PendingConnection] = {}  # the oldest first
        self._pause: asyncio.TimerHandle | None = None
        self._reported_at = float("-inf")
        listening.setblocking(False)
        # Accepted sockets inherit both (socket(7), tcp(7)).
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if listening.family != socket.AF_UNIX:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(listening.fileno(), self._accept_batch)

    def close(self) -> None:
        """Accept no more connections; end those that are in their handshake."""
        if self._listening.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()
        for task, pending in self._pending.items():
            pending.end(task)

    def _accept_batch(self) -> None:
        for _ in range(BATCH if self._evict is None else BATCH_BEYOND):
            try:
                accepted, _ = self._listening.accept()
            except BlockingIOError:
                return
            except ConnectionError:  # the client has left already
                continue
            except OSError as error:
                self._pause_accepting(error)
                return
            slot = self._places.acquire(beyond=self._places.is_full and self._make_room())
            if slot is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            pending = PendingConnection(accepted, slot)
            task = self._loop.create_task(self._enter(pending), name="accept")
            self._pending[task] = pending
            task.add_done_callback(self._finish_entry)

    def _make_room(self) -> bool:
        """End the oldest handshake, or else an idle connection, if this listener evicts."""
        if self._evict is None:
            return False
        if self._has_handshake:
            for task, pending in self._pending.items():
                if not pending.is_ending:
                    pending.end(task)
                    return True
        return self._evict()

    def _pause_accepting(self, error: OSError) -> None:
        """Pause: the socket stays readable, and the event loop would try it for ever."""
        self._loop.remove_reader(self._listening.fileno())
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume_accepting)
        now = self._loop.time()
        if error.errno in EXHAUSTED and now - self._reported_at >= REPORT_SECONDS:
            self._reported_at = now
            self._exhausted()

    def _resume_accepting(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening.fileno(), self._accept_batch)

    async def _enter(self, pending: PendingConnection) -> None:
        """Read the PROXY header, do the handshake, and serve; then the connection has the slot."""
        accepted, slot = pending.socket, pending.slot
        source = await self._identify(accepted) if self._identify is not None else DIRECT_SOURCE
        if source is None:
            return
        pending.is_handed_over = True

        def serve() -> asyncio.BaseProtocol:
            protocol = pending.protocol = self._serve(source.address, slot)
            return protocol

        try:
            await self._loop.connect_accepted_socket(serve, accepted, **self._options)
        except OSError:  # a handshake that fails concerns nobody else
            slot.release()
        except BaseException:
            slot.release()
            raise

    def _finish_entry(self, task: asyncio.Task[None]) -> None:
        """Clean up after a connection that is not served, even if its task never began to run."""
        self._pending.pop(task).close()
