"""A connection that breaks off looks broken to the other side, not ended."""

from __future__ import annotations

import asyncio

import pytest

from icr_proxy.net.transport import break_off


async def test_what_was_sent_does_not_look_complete() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of it")
        break_off(writer.transport)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    server.close()
