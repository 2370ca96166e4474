"""Has the caller the answer that was written to it? As far as a socket can tell.

A tool that gave up a moment ago may have closed its connection while the answer was on the way.
TCP tells the cases apart: what arrives at a closed socket, or lies unread in one that is closed,
is answered with a reset (RFC 2525, 2.17); who has read everything leaves with a plain goodbye.
"""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

# Linux; elsewhere a caller's goodbye is seen when the event loop sees it, as without this.
GOODBYE = getattr(select, "POLLRDHUP", 0)
# Not POLLHUP: of a Unix socket it is a plain goodbye.
RESET = select.POLLERR | select.POLLNVAL


def keep_nothing_back(transport: asyncio.Transport | None) -> None:
    """Let every write wait until the kernel has all of it: what is here yet, nobody has read."""
    if transport is not None:
        transport.set_write_buffer_limits(high=0)


def is_taken(transport: asyncio.Transport | None) -> bool:
    """Whether nothing speaks against the caller's having all that was written; ends the above."""
    if transport is None or transport.is_closing():
        return False
    transport.set_write_buffer_limits()
    if transport.get_write_buffer_size():
        return False
    raw = transport.get_extra_info("socket")
    poll = select.poll()
    poll.register(raw.fileno(), GOODBYE)
    happened = sum(event for _, event in poll.poll(0))
    if happened & RESET:
        return False
    return not happened & GOODBYE or _unacknowledged(raw.fileno()) == 0


def was_reset(transport: asyncio.Transport | None) -> bool:
    """Whether the other side has ended the connection with a reset, and nobody has noticed yet."""
    if transport is None or transport.is_closing():
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return any(event & RESET for _, event in poll.poll(0))


def _unacknowledged(fileno: int) -> int:
    """Bytes the other side has not confirmed (tcp(7), SIOCOUTQ, which is the same as this)."""
    answer = fcntl.ioctl(fileno, termios.TIOCOUTQ, struct.pack("i", 0))
    (count,) = struct.unpack("i", answer)
    return int(count)
