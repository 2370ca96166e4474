"""Who is at the other end of a caller's connection, as the connection itself tells it."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from icr_proxy.net.peers import LOCAL, Peer, certificate_names, plain_address

if TYPE_CHECKING:
    import asyncio

NOBODY = Peer(address="")
PEER = struct.Struct("3i")  # struct ucred: process, user, group


def peer_behind(transport: asyncio.BaseTransport, *, named: str | None) -> Peer:
    """Say who is at the other end."""
    return Peer(
        address=named if named is not None else connected_from(transport),
        names=certificate_names(transport.get_extra_info("peercert")),
    )


def connected_from(transport: asyncio.BaseTransport) -> str:
    """Give the address at the other end of the connection itself."""
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
