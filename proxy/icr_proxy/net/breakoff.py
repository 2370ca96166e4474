"""To break a connection so that nobody takes what was sent for the whole."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: closing sends RST instead of FIN


def break_off(transport: asyncio.WriteTransport) -> None:
    """Reset the connection; what is not sent yet is thrown away."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):  # closed by the other side a moment ago
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()
