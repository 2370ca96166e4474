"""Many callers, many installations: one mint each, and never a wrong token."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from icr_proxy.config.inbound_models import HeadersConfig, LimitsConfig, ListenerConfig
from icr_proxy.emulator.registry.entities import Installation
from icr_proxy.emulator.server import Emulator
from icr_proxy.emulator.settings import EmulatorSettings
from tests.support.app_fixture import (
    TAG,
    app_key_pem,
    call,
    config_for,
    proxy_before,
    read_answer,
    request_head,
    running,
)

Inventories = Callable[[Installation, str], Awaitable[Counter[int]]]


async def test_a_thousand_first_requests_share_one_mint(emulator: Emulator) -> None:
    installation = next(iter(emulator.world.installations.values()))
    target = f"/organizations/{installation.organization.id}/inventory"
    request = request_head(target=target, tag=installation.id)

    async with proxy_before(emulator, limits=LimitsConfig(in_flight=1000)) as proxy:
        answers = await asyncio.gather(*(call(proxy.port, request) for _ in range(1000)))

    assert Counter(answer.status for answer in answers) == {200: 1000}
    assert emulator.world.mints[installation.id] == 1


async def test_fifty_installations_interleaved_never_get_each_others_token() -> None:
    settings = EmulatorSettings(installations=50)
    statuses: Counter[int] = Counter()

    async def caller(port: int, requests: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in requests:
            writer.write(request)
            statuses[(await read_answer(reader)).status] += 1
        writer.close()

    async with (
        Emulator(settings, private_keys=[app_key_pem()]) as emulator,
        proxy_before(emulator) as proxy,
    ):
        requests = [
            request_head(target=f"/organizations/{one.organization.id}/inventory", tag=one.id)
            for one in emulator.world.installations.values()
        ] * 200
        # Each caller meets all installations in turn, so that neighbours in time are strangers.
        await asyncio.gather(*(caller(proxy.port, requests[at::16]) for at in range(16)))

        assert statuses == {200: 10_000}
        assert not emulator.world.denied
        assert set(emulator.world.mints.values()) == {1}
        assert len(emulator.world.mints) == 50
        assert proxy.metric("replays_total", result="healed") == 0


@asynccontextmanager
async def callers(port: int) -> AsyncIterator[Inventories]:
    """Give what asks for an inventory three times on each of four connections, in turn."""
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]

    async def inventories(of: Installation, request: str) -> Counter[int]:
        target = f"/organizations/{of.organization.id}/inventory"
        statuses: Counter[int] = Counter()
        for reader, writer in connections * 3:
            writer.write(request_head(target=target, tag=None, extra=request))
            statuses[(await read_answer(reader)).status] += 1
        return statuses

    yield inventories
    for _, writer in connections:
        writer.close()


async def test_the_same_lines_mean_something_else_on_another_listener(emulator: Emulator) -> None:
    """What is remembered of header lines is shared between connections: see `repeating`."""
    mine, theirs = list(emulator.world.installations.values())[:2]
    config = replace(
        config_for(emulator.base_url, app_id=emulator.app_id, key=emulator.private_key_pem),
        listeners=tuple(
            ListenerConfig(bind="127.0.0.1:0", installation=each.id) for each in (mine, theirs)
        ),
    )
    async with running(config) as proxy:
        first, second = (
            int(listener.address.rpartition(":")[2]) for listener in proxy.app.inbound.listeners
        )
        async with callers(first) as one, callers(second) as other:
            assert await one(mine, "") == {200: 12}
            assert await other(theirs, "") == {200: 12}
            assert await one(mine, "") == {200: 12}

    assert not emulator.world.denied


async def test_the_same_lines_mean_something_else_after_a_reload(emulator: Emulator) -> None:
    mine, theirs = list(emulator.world.installations.values())[:2]
    lines = f"{TAG}: {mine.id}\r\nX-Team: {theirs.id}\r\n"
    config = config_for(emulator.base_url, app_id=emulator.app_id, key=emulator.private_key_pem)
    async with running(config) as proxy, callers(proxy.port) as ask:
        for _ in range(4):
            proxy.app.reload(lambda: config)
            assert await ask(mine, lines) == {200: 12}
            proxy.app.reload(lambda: replace(config, headers=HeadersConfig(installation="X-Team")))
            assert await ask(theirs, lines) == {200: 12}

    assert not emulator.world.denied
