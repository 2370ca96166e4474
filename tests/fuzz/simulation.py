"""An event loop in which time passes only when nothing else is left to do, and wires in memory.

The real protocols of the proxy run on it, at thousands of conversations per second and always in
the same order. "Nothing happens any more" is an event here (`settled`), so that no test has to wait
for luck, and a minute's time-out costs nothing.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    Item = bytes | Literal["end", "reset"]


class Stillness(selectors.SelectSelector):
    """Watches no sockets: what would be a wait for them is the passing of time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def select(self, timeout: float | None = None) -> list[Any]:
        """Tell who waits for quiet, else go to the next moment at which something is due."""
        if timeout is not None and timeout <= 0:
            return []
        if self.waiting:
            while self.waiting:
                future = self.waiting.popleft()
                if not future.done():
                    future.set_result(None)
        elif timeout is None:
            raise RuntimeError("everybody waits for somebody else")
        else:
            self.now += timeout
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Connects to what is registered under an address, in memory."""

    def __init__(self) -> None:
        self._stillness = Stillness()
        super().__init__(self._stillness)
        self.servers: dict[tuple[str, int], Callable[[], asyncio.BaseProtocol]] = {}
        self.complaints: list[str] = []
        """What would have been an unhandled error."""
        self.set_exception_handler(self._complain)
        self._quiet, self._far_end = socket.socketpair()
        self._busy, other = socket.socketpair()
        other.close()  # readable for ever
        self._closing = False

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    def time(self) -> float:
        """Give the time of the simulation."""
        return self._stillness.now

    async def settled(self) -> None:
        """Wait until nothing is left to do but to let time pass."""
        future = self.create_future()
        self._stillness.waiting.append(future)
        await future

    def close(self) -> None:
        """Give the few real descriptors back."""
        super().close()
        for each in (self._quiet, self._far_end, self._busy):
            each.close()

    def poll_socket(self, wire: Wire) -> PollSocket:
        """Give what stands for the socket of a wire where somebody polls it."""
        return PollSocket(wire, quiet=self._quiet, busy=self._busy)

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: str | None = None,
        port: int | None = None,
        **_options: Any,
    ) -> tuple[Wire, Any]:
        """Connect to a simulated server."""
        make = self.servers.get((host or "", port or 0))
        if make is None:
            raise ConnectionRefusedError(111, "nobody listens there")
        protocol = protocol_factory()
        mine, _ = connect(self, protocol, make())
        return mine, protocol


class PollSocket:
    """Has a descriptor that is readable while bytes lie on the wire that nobody was told of."""

    family = socket.AF_UNIX  # to which no option of TCP applies

    def __init__(self, wire: Wire, *, quiet: socket.socket, busy: socket.socket) -> None:
        self._wire = wire
        self._quiet = quiet
        self._busy = busy

    def fileno(self) -> int:
        """Give the descriptor of one of two real sockets."""
        return (self._busy if self._wire.inbox else self._quiet).fileno()

    def setsockopt(self, *_option: Any) -> None:
        """Take an option without effect."""


def connect(
    loop: SimulatedLoop, one: asyncio.BaseProtocol, other: asyncio.BaseProtocol
) -> tuple[Wire, Wire]:
    """Join two protocols by a pair of wires."""
    near, far = Wire(loop, one), Wire(loop, other)
    near.peer, far.peer = far, near
    far.protocol.connection_made(far)
    near.protocol.connection_made(near)
    return near, far


class Wire(asyncio.Transport):
    """One end of a connection: what is written at the other arrives here in a later turn."""

    def __init__(self, loop: SimulatedLoop, protocol: Any) -> None:
        super().__init__()
        self._loop = loop
        self.protocol = protocol
        self.peer = self
        self.inbox: deque[Item] = deque()
        self._paused = False
        self._closing = False
        self._said_end = False
        self._lost = False
        self._delivery: asyncio.Handle | None = None

    # -- what protocols use -----------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Know an address, and a socket to poll."""
        if name == "peername":
            return ("127.0.0.1", 40000)
        if name == "sockname":
            return ("127.0.0.1", 8080)
        return self._loop.poll_socket(self) if name == "socket" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, unless it is too late."""
        if not self._closing and not self._said_end and data:
            self.peer.arrive(bytes(data))

    def can_write_eof(self) -> bool:
        """It is TCP without TLS."""
        return True

    def write_eof(self) -> None:
        """Say that nothing more comes, and go on hearing."""
        if not self._closing and not self._said_end:
            self._said_end = True
            self.peer.arrive("end")

    def close(self) -> None:
        """Say goodbye after what was written."""
        self.write_eof()
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """Break off: the other end learns of it in the order of what was written."""
        if not self._closing:
            self.peer.arrive("reset")
        self._closing = True
        self._loop.call_soon(self._lose, None)

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._closing

    def pause_reading(self) -> None:
        """Leave what arrives on the wire."""
        self._paused = True

    def resume_reading(self) -> None:
        """Take it again."""
        self._paused = False
        self._schedule()

    def get_write_buffer_size(self) -> int:
        """Nothing is ever held on this side."""
        return 0

    # -- what the other end and the test use ------------------------------------------------------

    def arrive(self, item: Item) -> None:
        """Put something on the wire."""
        if not self._lost:
            self.inbox.append(item)
            self._schedule()
        elif isinstance(item, bytes):
            self.peer.arrive("reset")  # as the kernel answers for a socket that is closed

    def choke(self, *, full: bool) -> None:
        """Be a connection whose far end does not read, or reads again."""
        if not self._lost:
            if full:
                self.protocol.pause_writing()
            else:
                self.protocol.resume_writing()

    def _schedule(self) -> None:
        if self._delivery is None and self.inbox and not self._paused and not self._lost:
            self._delivery = self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._delivery = None
        while self.inbox and not self._paused and not self._closing:
            item = self.inbox.popleft()
            if item == "reset":
                self._closing = True
                self._lose(ConnectionResetError(104, "reset by the other end"))
            elif item == "end":
                if not self.protocol.eof_received():
                    self.close()
            elif isinstance(item, bytes):
                self._hand_over(item)

    def _hand_over(self, data: bytes) -> None:
        """Give it in the way the protocol takes it, as event loops do."""
        protocol = self.protocol
        if isinstance(protocol, asyncio.Protocol):
            protocol.data_received(data)
            return
        while data and not self._lost:
            if self._paused:
                self.inbox.appendleft(data)
                return
            buffer = protocol.get_buffer(len(data))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            protocol.buffer_updated(size)
            data = data[size:]

    def _lose(self, exc: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self.inbox.clear()
            self.protocol.connection_lost(exc)
