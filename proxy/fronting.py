"""Accepts connections that begin with a PROXY header, reads it, and hands them on.

Only listeners behind a load balancer have one. The header is read from the bare socket, byte by
byte as far as it goes, so that what follows it is still there for the TLS handshake or the parser.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from proxy.peers import plain_address
from proxy.proxyprotocol import Source, examine

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

HEADER_SECONDS = 5.0  # HAProxy's and nginx's load balancers send it at once
PAUSE_SECONDS = 1.0  # asyncio's, too, when no descriptor is left for a connection
REASONS = ("untrusted", "invalid", "timeout")


class Fronted:
    """One listening socket on which every connection must say for whom it is made."""

    def __init__(
        self,
        listening: socket.socket,
        *,
        serve: Callable[[str | None], asyncio.BaseProtocol],
        trusted: Sequence[str],
        refused: Callable[[str, str], None],
        options: dict[str, Any],
    ) -> None:
        """Begin to accept.

        `serve` makes the protocol for a caller's address, or for that of the connection itself;
        `trusted` are the networks of load balancers; `refused` hears one of `REASONS` and who it
        was; `options` are those of `connect_accepted_socket`.
        """
        self._listening = listening
        self._serve = serve
        self._trusted = [ip_network(each) for each in trusted]
        self._refused = refused
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._entering: set[asyncio.Task[None]] = set()
        self._accepting = self._loop.create_task(self._accept(), name="accept")

    def close(self) -> None:
        """Take no new connections; whoever has not got through the door is left outside."""
        self._accepting.cancel()
        for task in self._entering:
            task.cancel()

    async def _accept(self) -> None:
        try:
            while True:
                try:
                    found, _ = await self._loop.sock_accept(self._listening)
                except OSError:
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                task = self._loop.create_task(self._enter(found), name="proxy-header")
                self._entering.add(task)
                task.add_done_callback(self._entering.discard)
        finally:
            self._listening.close()

    async def _enter(self, found: socket.socket) -> None:
        try:
            source = await self._read(found)
        except BaseException:
            found.close()
            raise
        if source is None:
            found.close()
            return
        # A handshake that fails has been ended by the loop already; it concerns nobody else.
        with suppress(OSError):
            await self._loop.connect_accepted_socket(
                lambda: self._serve(source.address), found, **self._options
            )

    async def _read(self, found: socket.socket) -> Source | None:
        """Give what the header says, or None if nobody is let in by it."""
        peer = _peer(found)
        if not self._trusts(peer):
            self._refused("untrusted", peer)
            return None
        try:
            async with asyncio.timeout(HEADER_SECONDS):
                return await self._header(found)
        except TimeoutError:
            self._refused("timeout", peer)
        except (ValueError, ConnectionError):
            self._refused("invalid", peer)
        return None

    async def _header(self, found: socket.socket) -> Source:
        data = b""
        while not isinstance(step := examine(data), Source):
            piece = await self._loop.sock_recv(found, step)
            if not piece:
                raise ValueError("ended in the middle of a PROXY header")
            data += piece
        return step

    def _trusts(self, peer: str) -> bool:
        """Whether it is one of the load balancers; over a Unix socket, whoever may connect is."""
        if not peer:
            return True
        address = ip_address(peer)
        return any(address in network for network in self._trusted)


def _peer(found: socket.socket) -> str:
    """Give the address of who connects; none on a Unix socket."""
    try:
        name = found.getpeername()
    except OSError:  # gone already
        return "0.0.0.0"  # noqa: S104  # which nobody has
    return plain_address(name[0].partition("%")[0]) if isinstance(name, tuple) else ""
