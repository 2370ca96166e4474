"""Connections count from the moment they are accepted; without descriptors, accepting waits."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from icr_proxy.config.inbound_models import LimitsConfig, TlsConfig
from icr_proxy.net.tls import ReloadingSslContext
from icr_proxy.server import acceptor
from icr_proxy.server.acceptor import BATCH_BEYOND, Acceptor
from icr_proxy.server.limits import ConnectionLimit, ConnectionSlot
from icr_proxy.server.listener import Listener, ListenerOptions
from icr_proxy.server.request import Request
from icr_proxy.server.response import ResponseWriter, send_page, text_page
from tests.support.app_fixture import read_answer, request_head
from tests.support.certificate_authority import authority, server_certificate, trusting
from tests.unit.net.test_tls import Told

Run = Callable[[Awaitable[None]], None]
BOTH = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


async def respond(request: Request) -> ResponseWriter:
    return await send_page(request, text_page(200, "hello"), closing=False)


@asynccontextmanager
async def listening(
    places: ConnectionLimit,
    *,
    bind: str = "127.0.0.1:0",
    door: ListenerOptions | None = None,
    evicts: bool = False,
) -> AsyncIterator[Listener]:
    listener = Listener(
        bind,
        respond=respond,
        refuse=lambda request, _error: respond(request),
        limits=LimitsConfig(),
        tag="x-tag",
        logger=logging.getLogger("nobody"),
        door=door or ListenerOptions(),
        places=places,
        evicts=evicts,
    )
    await listener.open()
    try:
        async with asyncio.timeout(10):
            yield listener
    finally:
        await listener.close()


async def connect(listener: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if listener.address.startswith("unix:"):
        return await asyncio.open_unix_connection(listener.address.removeprefix("unix:"))
    return await asyncio.open_connection("127.0.0.1", int(listener.address.rpartition(":")[2]))


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    with suppress(ConnectionError):
        return await reader.read()
    return b""


def door_for(kind: str, folder: Path) -> ListenerOptions:
    tls = None
    if kind == "tls":
        cert, key = server_certificate().write(folder)
        tls = ReloadingSslContext(TlsConfig(cert=cert, key=key), key="tls", watcher=Told())
    return ListenerOptions(tls=tls, fronted_by=("127.0.0.0/8",) if kind == "fronted" else None)


@BOTH
@pytest.mark.parametrize("kind", ["plain", "tls", "fronted", "unix"])
def test_whoever_says_nothing_counts_from_the_beginning(
    kind: str, run: Run, tmp_path: Path
) -> None:
    """In the TLS handshake or before the PROXY header, they took descriptors without a bound."""

    async def scene() -> None:
        places = ConnectionLimit(2)
        bind = f"unix:{tmp_path}/s" if kind == "unix" else "127.0.0.1:0"
        async with listening(places, bind=bind, door=door_for(kind, tmp_path)) as listener:
            silent = [await connect(listener) for _ in range(2)]
            while places.taken < 2:  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0.005)
            reader, writer = await connect(listener)
            assert await rest_of(reader) == b""
            writer.close()
            for _, each in silent:
                each.close()
            while places.taken:  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0.005)

    run(scene())


@BOTH
def test_a_handshake_that_fails_leaves_its_place(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        places = ConnectionLimit(1)
        async with listening(places, door=door_for("tls", tmp_path)) as listener:
            for _ in range(3):
                reader, writer = await connect(listener)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await rest_of(reader)
                writer.close()
                while places.taken:  # noqa: ASYNC110  # nobody is told
                    await asyncio.sleep(0.005)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                int(listener.address.rpartition(":")[2]),
                ssl=trusting(authority()),
                server_hostname="localhost",
            )
            writer.write(request_head())
            assert (await read_answer(reader)).status == 200
            assert places.taken == 1
            writer.transport.abort()

    run(scene())


@BOTH
@pytest.mark.parametrize("kind", ["plain", "tls", "unix"])
def test_where_idle_connections_are_evicted_nobody_is_kept_out(
    kind: str, run: Run, tmp_path: Path
) -> None:
    """So that whoever holds connections to the admin port does not fail its probes."""

    async def scene() -> None:
        places = ConnectionLimit(4)
        bind = f"unix:{tmp_path}/s" if kind == "unix" else "127.0.0.1:0"
        door = door_for(kind, tmp_path)
        async with listening(places, bind=bind, door=door, evicts=True) as listener:
            held = [await connect(listener) for _ in range(40)]
            while places.taken > 4:  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0.005)
            if kind == "tls":
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1",
                    int(listener.address.rpartition(":")[2]),
                    ssl=trusting(authority()),
                    server_hostname="localhost",
                )
            else:
                reader, writer = await connect(listener)
            writer.write(request_head())
            assert (await read_answer(reader)).status == 200
            assert places.taken <= 4 + BATCH_BEYOND
            assert listener.connections <= places.taken
            for each in (writer, *(each for _, each in held)):
                each.transport.abort()

    run(scene())


class Failing(socket.socket):
    """A listening socket that has to try several times until it can accept."""

    left: list[int]
    tries = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.tries += 1
        if self.left:
            raise OSError(self.left.pop(), "no")
        return super().accept()


@BOTH
@pytest.mark.parametrize(
    ("number", "told"),
    [
        pytest.param(errno.EMFILE, 1, id="of this process"),
        pytest.param(errno.ENFILE, 1, id="of the system"),
        pytest.param(errno.ENETDOWN, 0, id="another reason"),
    ],
)
def test_without_descriptors_accepting_waits_and_goes_on(
    number: int, told: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.05)
    heard: list[str] = []

    class Hello(asyncio.Protocol):
        def __init__(self, place: ConnectionSlot) -> None:
            self._place = place

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(b"hello")  # type: ignore[attr-defined]  # a TCP transport has it
            transport.close()

        def connection_lost(self, _exc: Exception | None) -> None:
            self._place.release()

    async def scene() -> None:
        places = ConnectionLimit(1)
        listening = Failing()
        listening.left = [number] * 4
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        accepting = Acceptor(
            listening,
            serve=lambda _named, place: Hello(place),
            places=places,
            options={},
            exhausted=lambda: heard.append("exhausted"),
        )
        began = asyncio.get_running_loop().time()
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        assert await reader.read() == b"hello"
        assert asyncio.get_running_loop().time() - began >= 0.15
        assert listening.tries <= 8
        writer.close()
        while places.taken:  # noqa: ASYNC110  # nobody is told
            await asyncio.sleep(0.005)
        accepting.close()
        accepting.close()

    run(scene())

    assert heard == ["exhausted"] * told


async def test_closing_while_it_waits_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.01)
    listening = Failing()
    listening.left = [errno.ECONNABORTED, errno.EMFILE]
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    listening.left.reverse()
    accepting = Acceptor(
        listening,
        serve=lambda _named, _place: asyncio.Protocol(),
        places=ConnectionLimit(1),
        options={},
    )
    _, writer = await asyncio.open_connection(*listening.getsockname())
    while listening.tries < 2:  # noqa: ASYNC110  # nobody is told
        await asyncio.sleep(0.001)
    accepting.close()
    await asyncio.sleep(0.03)
    writer.close()

    assert listening.tries == 2
