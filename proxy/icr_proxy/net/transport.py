"""Transports: who the peer is, whether it received a response, whether it left; and a reset.

A client that gave up may have closed its connection while the response was on the way. TCP tells
the cases apart. A closed socket answers what arrives, or what it left unread, with a reset
(RFC 2525, 2.17). A client that has read everything ends with a plain FIN.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

from icr_proxy.net.peers import LOCAL, Peer, certificate_names, plain_address

if TYPE_CHECKING:
    from collections.abc import Callable

# Linux; elsewhere a client's FIN is seen when the event loop sees it, as without this.
PEER_CLOSED = getattr(select, "POLLRDHUP", 0)
# Not POLLHUP: of a Unix socket it is a plain end.
RESET = select.POLLERR | select.POLLNVAL
PAUSED_CHECK_SECONDS = 0.5


def keep_nothing_back(transport: asyncio.Transport | None) -> None:
    """Let every write wait until the kernel has all of it: nobody has read what is still here."""
    if transport is not None:
        transport.set_write_buffer_limits(high=0)


def is_taken(transport: asyncio.Transport | None) -> bool:
    """Whether the client may have received all that was written; ends `keep_nothing_back`."""
    if transport is None or transport.is_closing():
        return False
    transport.set_write_buffer_limits()
    if transport.get_write_buffer_size():
        return False
    raw = transport.get_extra_info("socket")
    poll = select.poll()
    poll.register(raw.fileno(), PEER_CLOSED)
    happened = sum(event for _, event in poll.poll(0))
    if happened & RESET:
        return False
    return not happened & PEER_CLOSED or _unacknowledged(raw.fileno()) == 0


def was_reset(transport: asyncio.Transport | None) -> bool:
    """Whether the peer has reset the connection, and the event loop has not noticed yet."""
    if transport is None or transport.is_closing():
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return any(event & RESET for _, event in poll.poll(0))


class PausedTransports:
    """The transports that are not being read from; a periodic check finds those whose peer left.

    An event loop sees neither the end nor the reset of a connection that it does not read.
    """

    def __init__(self) -> None:
        self._peer_left: dict[asyncio.Transport, Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, transport: asyncio.Transport, peer_left: Callable[[], None]) -> None:
        """Check this one, too, and call `peer_left` once its peer has left."""
        self._peer_left[transport] = peer_left
        if self._timer is None:
            self._schedule()

    def remove(self, transport: asyncio.Transport) -> None:
        """Check this one no longer."""
        self._peer_left.pop(transport, None)

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(PAUSED_CHECK_SECONDS, self._check)

    def _check(self) -> None:
        self._timer = None
        poll = select.poll()
        registered = {}
        for transport, peer_left in self._peer_left.items():
            raw = transport.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                poll.register(raw.fileno(), PEER_CLOSED)
                registered[raw.fileno()] = peer_left
        for fileno, _ in poll.poll(0):
            registered[fileno]()
        if self._peer_left:
            self._schedule()


def _unacknowledged(fileno: int) -> int:
    """Bytes that the peer has not acknowledged (tcp(7): SIOCOUTQ is the same as TIOCOUTQ)."""
    answer = fcntl.ioctl(fileno, termios.TIOCOUTQ, struct.pack("i", 0))
    (count,) = struct.unpack("i", answer)
    return int(count)


NO_LINGER = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: closing sends RST instead of FIN


def reset_connection(transport: asyncio.WriteTransport) -> None:
    """Reset the connection; what is not sent yet is thrown away."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):  # closed by the other side a moment ago
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    transport.abort()


NOBODY = Peer(address="")
PEER = struct.Struct("3i")  # struct ucred: process, user, group


def peer_of_transport(transport: asyncio.BaseTransport, *, named: str | None) -> Peer:
    """Return the peer of a connection."""
    return Peer(
        address=named if named is not None else connected_from(transport),
        names=certificate_names(transport.get_extra_info("peercert")),
    )


def connected_from(transport: asyncio.BaseTransport) -> str:
    """Return the peer's address, as the connection itself has it."""
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
