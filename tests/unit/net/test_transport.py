"""What a socket tells about an answer that was written: taken, or not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from icr_proxy.net.transport import (
    is_taken,
    keep_nothing_back,
    peer_of_transport,
    reset_connection,
    was_reset,
)

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def a_pair() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """Give our end, and a caller's that acts while the event loop does not look."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[asyncio.Transport] = loop.create_future()

    class Ours(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
            made.set_result(transport)  # type: ignore[arg-type]  # uvloop's is one in all but name

    server = await loop.create_server(Ours, "127.0.0.1", 0)
    theirs = socket.create_connection(server.sockets[0].getsockname())
    theirs.settimeout(5)
    ours = await made
    try:
        yield ours, theirs
    finally:
        theirs.close()
        ours.abort()
        server.close()
        await server.wait_closed()


def leave(theirs: socket.socket) -> None:
    theirs.close()


async def test_an_answer_to_a_caller_that_waits_is_taken() -> None:
    async with a_pair() as (ours, _):
        ours.write(HELLO)

        assert is_taken(ours)


async def test_an_answer_to_a_caller_that_read_it_and_left_is_taken() -> None:
    """curl does so, in less time than the event loop needs to look."""
    async with a_pair() as (ours, theirs):
        ours.write(HELLO)
        assert theirs.recv(1000) == HELLO
        leave(theirs)

        assert is_taken(ours)


async def test_an_answer_to_a_caller_that_had_left_is_not_taken() -> None:
    async with a_pair() as (ours, theirs):
        leave(theirs)
        ours.write(HELLO)

        assert not is_taken(ours)


async def test_an_answer_that_a_caller_left_unread_is_not_taken() -> None:
    async with a_pair() as (ours, theirs):
        ours.write(HELLO)
        leave(theirs)

        assert not is_taken(ours)


async def test_an_answer_of_which_a_caller_read_half_is_not_taken() -> None:
    async with a_pair() as (ours, theirs):
        ours.write(HELLO)
        theirs.recv(10)
        leave(theirs)

        assert not is_taken(ours)


async def test_a_reset_is_seen_before_the_event_loop_looks() -> None:
    async with a_pair() as (ours, theirs):
        ours.write(HELLO)
        before = was_reset(ours)
        leave(theirs)

        assert (before, was_reset(ours)) == (False, True)
        ours.abort()
        assert not was_reset(ours)
    assert not was_reset(None)


async def test_a_plain_goodbye_is_no_reset() -> None:
    async with a_pair() as (ours, theirs):
        ours.write(HELLO)
        theirs.recv(1000)
        leave(theirs)

        assert not was_reset(ours)


async def test_what_has_not_left_this_process_is_not_taken() -> None:
    async with a_pair() as (ours, _):
        ours.write(b"x" * 20_000_000)

        assert not is_taken(ours)


async def test_a_unix_socket_tells_the_same() -> None:
    loop = asyncio.get_running_loop()
    told = []
    for reads in (len(HELLO), len(HELLO) - 1, 0):
        ours, theirs = socket.socketpair()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
        transport.write(HELLO)
        if reads:
            theirs.recv(reads)
        leave(theirs)
        told.append(is_taken(transport))
        transport.abort()
    await asyncio.sleep(0)

    assert told == [True, False, False]


async def test_a_connection_that_is_gone_has_taken_nothing() -> None:
    async with a_pair() as (ours, _):
        ours.close()

        assert not is_taken(ours)
    assert not is_taken(None)
    keep_nothing_back(None)


def test_it_is_the_same_on_the_loop_that_the_program_runs_on() -> None:
    async def all_of_them() -> None:
        await test_an_answer_to_a_caller_that_read_it_and_left_is_taken()
        await test_an_answer_to_a_caller_that_had_left_is_not_taken()
        await test_an_answer_that_a_caller_left_unread_is_not_taken()
        await test_what_has_not_left_this_process_is_not_taken()

    uvloop.run(all_of_them())


async def test_a_process_behind_a_unix_socket_is_known_by_its_number() -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)

    peer = peer_of_transport(transport, named=None)

    assert f"uid={os.getuid()},pid={os.getpid()}" in peer.address
    assert not peer.names
    transport.abort()
    theirs.close()


async def test_the_address_that_a_load_balancer_names_counts() -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)

    assert peer_of_transport(transport, named="192.0.2.1").address == "192.0.2.1"
    transport.abort()
    theirs.close()


async def test_a_caller_over_tcp_is_known_by_its_address() -> None:
    peers = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(peer_of_transport(writer.transport, named=None).address)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read()

    assert peers == ["127.0.0.1"]
    writer.close()
    server.close()


async def test_what_was_sent_does_not_look_complete() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of it")
        reset_connection(writer.transport)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    server.close()
