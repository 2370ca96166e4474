"""Reads the PROXY header with which a load balancer begins each connection.

Only listeners behind a load balancer have one. The header is read from the bare socket, byte by
byte as far as it goes, so that what follows it is still there for the TLS handshake or the parser.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from icr_proxy.net.peers import plain_address
from icr_proxy.net.proxy_protocol import ProxiedSource, examine

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

HEADER_SECONDS = 5.0  # HAProxy's and nginx's load balancers send it at once
REASONS = ("untrusted", "invalid", "timeout")


class ProxyHeaderReader:
    """Reader of the PROXY header, which names the client for whom a load balancer connects."""

    def __init__(self, *, trusted: Sequence[str], refused: Callable[[str, str], None]) -> None:
        """Read headers from the `trusted` networks of load balancers.

        `refused` is called with one of `REASONS` and the address of the peer.
        """
        self._trusted = [ip_network(each) for each in trusted]
        self._refused = refused

    async def __call__(self, found: socket.socket) -> ProxiedSource | None:
        """Return what the header says, or None if the connection is refused."""
        peer = _peer_address(found)
        if not self._trusts(peer):
            self._refused("untrusted", peer)
            return None
        try:
            async with asyncio.timeout(HEADER_SECONDS):
                return await self._read_header(found)
        except TimeoutError:
            self._refused("timeout", peer)
        except (ValueError, ConnectionError):
            self._refused("invalid", peer)
        return None

    async def _read_header(self, found: socket.socket) -> ProxiedSource:
        data, loop = b"", asyncio.get_running_loop()
        while not isinstance(step := examine(data), ProxiedSource):
            piece = await loop.sock_recv(found, step)
            if not piece:
                raise ValueError("ended in the middle of a PROXY header")
            data += piece
        return step

    def _trusts(self, peer: str) -> bool:
        """Whether the peer is a load balancer; over a Unix socket, every peer is one."""
        if not peer:
            return True
        address = ip_address(peer)
        return any(address in network for network in self._trusted)


def _peer_address(found: socket.socket) -> str:
    """Return the address of the peer; none on a Unix socket."""
    try:
        name = found.getpeername()
    except OSError:  # gone already
        return "0.0.0.0"  # noqa: S104  # which nobody has
    return plain_address(name[0].partition("%")[0]) if isinstance(name, tuple) else ""
