"""Addresses: had, told as bound, and given up in order."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from proxy.errors import BindError
from proxy.listeners import Listener
from proxy.servingconfig import LimitsConfig
from tests.scenes import TAG, config_for, running

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
        listener = proxy.app.parts.listeners[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        async with asyncio.timeout(5):
            while listener.connections == 0:  # noqa: ASYNC110  # the listener tells nobody
                await asyncio.sleep(0)
            listener.stop_accepting()
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)


def bare_listener(*, bind: str, respond: Any = None) -> Listener:
    return Listener(
        bind,
        respond=respond,
        refuse=respond,
        limits=LimitsConfig(),
        tag=TAG,
        logger=logging.getLogger("nobody"),
    )
