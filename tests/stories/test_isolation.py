"""Many callers, many installations: one mint each, and never a wrong token."""

from __future__ import annotations

import asyncio
from collections import Counter

from proxy.emulator.server import Emulator
from proxy.emulator.settings import EmulatorSettings
from proxy.servingconfig import LimitsConfig
from tests.scenes import app_key_pem, call, proxy_before, read_answer, request_head


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
