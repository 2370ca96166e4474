"""A connection tells who is at its other end."""

from __future__ import annotations

import asyncio
import os
import socket

from icr_proxy.net.transport import peer_behind


async def test_a_process_behind_a_unix_socket_is_known_by_its_number() -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)

    peer = peer_behind(transport, named=None)

    assert f"uid={os.getuid()},pid={os.getpid()}" in peer.address
    assert not peer.names
    transport.abort()
    theirs.close()


async def test_the_address_that_a_load_balancer_names_counts() -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)

    assert peer_behind(transport, named="192.0.2.1").address == "192.0.2.1"
    transport.abort()
    theirs.close()


async def test_a_caller_over_tcp_is_known_by_its_address() -> None:
    peers = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(peer_behind(writer.transport, named=None).address)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read()

    assert peers == ["127.0.0.1"]
    writer.close()
    server.close()
