"""Addresses: had, told as bound, and given up in order."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.errors import BindError
from icr_proxy.net.peers import Peer
from icr_proxy.server.connection import peer_of
from icr_proxy.server.listener import ORDINARY, Listener, ListenerOptions
from icr_proxy.server.response import send_page, text_page
from tests.support.app_fixture import TAG, config_for, read_answer, request_head, running

NOWHERE = "http://127.0.0.1:9"


async def test_an_address_that_cannot_be_had_is_told_in_a_sentence() -> None:
    async with running(config_for(NOWHERE)) as proxy:
        listener = bare_listener(bind=proxy.app.address)

        with pytest.raises(BindError, match="is another program using it"):
            await listener.open()
        await listener.close()


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0"])
async def test_port_0_becomes_the_real_one(bind: str) -> None:
    listener = bare_listener(bind=bind)
    await listener.open()

    host, _, port = listener.address.rpartition(":")
    assert host == bind[:-2]
    assert int(port) > 0
    await listener.close()


async def test_a_listener_that_stops_accepting_ends_idle_connections() -> None:
    async with running(config_for(NOWHERE)) as proxy:
        listener = proxy.app.inbound.listeners[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        async with asyncio.timeout(5):
            while listener.connections == 0:  # noqa: ASYNC110  # the listener tells nobody
                await asyncio.sleep(0)
            listener.stop_accepting()
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)


def bare_listener(*, bind: str, respond: Any = None, door: ListenerOptions = ORDINARY) -> Listener:
    return Listener(
        bind,
        respond=respond,
        refuse=respond,
        limits=LimitsConfig(),
        tag=TAG,
        logger=logging.getLogger("nobody"),
        door=door,
    )


async def test_a_name_is_served_on_every_address_it_has() -> None:
    listener = bare_listener(bind="localhost:0")
    await listener.open()

    assert listener.address == listener.addresses[0]
    assert {address.rpartition(":")[0] for address in listener.addresses} <= {"127.0.0.1", "[::1]"}
    for address in listener.addresses:
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.close()
    await listener.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_caller_on_a_unix_socket_is_known_by_its_process(
    tmp_path: Path, run: Callable[[Awaitable[None]], None]
) -> None:
    peers: list[Peer] = []

    async def respond(request: Any) -> Any:
        peers.append(peer_of(request))
        return await send_page(request, text_page(200, "hello"))

    async def scene() -> None:
        path = tmp_path / "s"
        listener = bare_listener(bind=f"unix:{path}", respond=respond)
        await listener.open()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(request_head())
        answer = await read_answer(reader)
        writer.close()
        await listener.close()

        assert listener.address == f"unix:{path}"
        assert answer.status == 200
        assert peers == [Peer(address=f"unix:uid={os.getuid()},pid={os.getpid()}")]
        assert peers[0].is_local
        assert not path.exists()

    run(scene())


@pytest.mark.parametrize(
    ("host", "may_be_reached", "opens"),
    [
        pytest.param("127.0.0.1", False, True, id="loopback"),
        pytest.param("0.0.0.0", False, False, id="not meant"),  # that is the point
        pytest.param("0.0.0.0", True, True, id="on purpose"),
    ],
)
async def test_what_a_socket_of_systemds_is_bound_to_must_be_meant(
    host: str, *, may_be_reached: bool, opens: bool
) -> None:
    passed = socket.create_server((host, 0))
    passed.setblocking(False)
    port = passed.getsockname()[1]
    door = ListenerOptions(may_be_reached=may_be_reached, passed=lambda _name: [passed])
    listener = bare_listener(bind="systemd:web", door=door)

    if opens:
        await listener.open()
        assert listener.address == f"{host}:{port}"
    else:
        with pytest.raises(BindError, match=r"systemd:web: it is 0\.0\.0\.0:"):
            await listener.open()
    await listener.close()


async def test_without_a_service_manager_nothing_is_passed() -> None:
    listener = bare_listener(bind="systemd:web")

    with pytest.raises(BindError, match="no socket was passed"):
        await listener.open()
    await listener.close()
