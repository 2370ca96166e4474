"""Behind a load balancer: who calls is who it says, and nobody else gets in."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from icr_proxy.config.inbound_models import LimitsConfig, TlsConfig
from icr_proxy.net import proxy_protocol_acceptor
from icr_proxy.net.tls import ReloadingSslContext
from icr_proxy.server.connection import peer_of
from icr_proxy.server.listener import Listener, ListenerOptions
from icr_proxy.server.response import send_page, text_page
from tests.support.app_fixture import read_answer, request_head
from tests.support.certificate_authority import authority, server_certificate, trusting
from tests.unit.net.test_proxy_protocol import LOCAL, V4, V6, binary
from tests.unit.net.test_tls import Told

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from icr_proxy.server.request import Request
    from icr_proxy.server.response import ResponseWriter

HEADER = b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n"
BOTH = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@dataclass
class Stage:
    """A listener behind a load balancer, whom it took for callers, whom it refused."""

    listener: Listener
    peers: list[str]
    refused: list[str]

    @property
    def port(self) -> int:
        return int(self.listener.address.rpartition(":")[2])

    async def said(self, *pieces: bytes) -> bytes:
        """Send, and give all that comes back until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)  # so that it arrives by itself
        async with asyncio.timeout(5):
            try:
                return await reader.read()
            except ConnectionResetError:
                return b""
            finally:
                writer.close()


@asynccontextmanager
async def stage_with(
    *, bind: str = "127.0.0.1:0", trusted: tuple[str, ...] = ("127.0.0.0/8",), tls: Any = None
) -> AsyncIterator[Stage]:
    peers: list[str] = []
    refused: list[str] = []

    async def respond(request: Request) -> ResponseWriter:
        peers.append(peer_of(request).address)
        return await send_page(request, text_page(200, "hello"), closing=True)

    listener = Listener(
        bind,
        respond=respond,
        refuse=lambda request, _error: respond(request),
        limits=LimitsConfig(),
        tag="x-tag",
        logger=logging.getLogger("nobody"),
        door=ListenerOptions(
            fronted_by=trusted,
            front_refused=lambda reason, _peer: refused.append(reason),
            tls=tls,
        ),
    )
    await listener.open()
    try:
        yield Stage(listener, peers, refused)
    finally:
        await listener.close()
        await asyncio.sleep(0)


@BOTH
@pytest.mark.parametrize(
    ("header", "peer"),
    [
        pytest.param(HEADER, "192.0.2.7", id="v1"),
        pytest.param(b"PROXY UNKNOWN\r\n", "127.0.0.1", id="v1 unknown"),
        pytest.param(binary(V4), "192.0.2.7", id="v2"),
        pytest.param(binary(V6, family=0x21), "2001:db8::7", id="v2 IPv6"),
        pytest.param(binary(b"", family=0, command=LOCAL), "127.0.0.1", id="v2 local"),
    ],
)
def test_the_caller_is_who_the_load_balancer_says(
    run: Callable[[Awaitable[None]], None], header: bytes, peer: str
) -> None:
    async def scene() -> None:
        async with stage_with() as stage:
            whole = await stage.said(header + request_head())
            halves = await stage.said(header[:9], header[9:] + request_head())

        assert whole.startswith(b"HTTP/1.1 200")
        assert halves.startswith(b"HTTP/1.1 200")
        assert (stage.peers, stage.refused) == ([peer, peer], [])

    run(scene())


@BOTH
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(request_head(), id="a plain request"),
        pytest.param(b"PROXY TCP4 1.2.3 4 5 6 7 8 9 0 1\r\n" + request_head(), id="a bad header"),
    ],
)
def test_a_connection_without_a_header_is_closed_without_a_word(
    run: Callable[[Awaitable[None]], None], data: bytes
) -> None:
    async def scene() -> None:
        async with stage_with() as stage:
            assert await stage.said(data) == b""

        assert (stage.peers, stage.refused) == ([], ["invalid"])

    run(scene())


async def test_a_header_from_elsewhere_is_not_believed() -> None:
    async with stage_with(trusted=("10.0.0.0/8", "2001:db8::/32")) as stage:
        assert await stage.said(HEADER + request_head()) == b""

    assert (stage.peers, stage.refused) == ([], ["untrusted"])


async def test_a_header_that_does_not_go_on_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proxy_protocol_acceptor, "HEADER_SECONDS", 0.05)
    async with stage_with() as stage:
        assert await stage.said(HEADER[:20]) == b""

    assert stage.refused == ["timeout"]


async def test_a_load_balancer_that_hangs_up_is_no_caller() -> None:
    async with stage_with() as stage:
        _, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(HEADER[:20])
        writer.close()
        async with asyncio.timeout(5):
            while not stage.refused:  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0.01)

    assert stage.refused == ["invalid"]


async def test_whoever_may_connect_to_a_unix_socket_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with stage_with(bind=f"unix:{path}", trusted=()) as stage:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(HEADER + request_head())
        answer = await read_answer(reader)
        writer.close()

    assert answer.status == 200
    assert stage.peers == ["192.0.2.7"]


async def over_tls(port: int, context: ssl.SSLContext) -> bytes:
    """Send the header in clear and then shake hands."""
    loop = asyncio.get_running_loop()
    raw = socket.socket()
    raw.setblocking(False)
    await loop.sock_connect(raw, ("127.0.0.1", port))
    await loop.sock_sendall(raw, HEADER)
    reader, writer = await asyncio.open_connection(
        sock=raw, ssl=context, server_hostname="localhost"
    )
    writer.write(request_head())
    answer = await read_answer(reader)
    writer.transport.abort()
    return answer.body


@BOTH
def test_the_header_comes_before_the_handshake(
    tmp_path: Path, run: Callable[[Awaitable[None]], None]
) -> None:
    cert, key = server_certificate().write(tmp_path)

    async def scene() -> None:
        door = ReloadingSslContext(TlsConfig(cert=cert, key=key), key="tls", watcher=Told())
        async with stage_with(tls=door) as stage:
            body = await over_tls(stage.port, trusting(authority()))
            plain = await stage.said(HEADER + request_head())

        assert body == b"hello\n"
        assert plain == b"" or plain[0] == 0x15
        assert (stage.peers, stage.refused) == (["192.0.2.7"], [])

    run(scene())


async def test_closing_leaves_whoever_is_in_the_door_outside() -> None:
    async with stage_with() as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(HEADER[:20])
        await asyncio.sleep(0.05)
        stage.listener.stop_accepting()
        async with asyncio.timeout(5):
            try:
                rest = await reader.read()
            except ConnectionResetError:
                rest = b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", stage.port)

    assert rest == b""


def test_whoever_is_gone_already_is_trusted_by_nobody() -> None:
    with socket.socket() as never:
        assert proxy_protocol_acceptor._peer_address(never) == "0.0.0.0"  # nobody's address
