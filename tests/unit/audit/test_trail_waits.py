from __future__ import annotations

import asyncio

from icr_proxy.audit.trail import Waits

GUARD_SECONDS = 20.0


async def test_what_takes_too_long_is_given_up_in_order() -> None:
    waits = Waits(0.01)
    first, second = waits.begin(), waits.begin()

    async with asyncio.timeout(GUARD_SECONDS):
        assert await second is None
    assert first.result() is None


async def test_what_is_there_in_time_gets_its_number() -> None:
    waits = Waits(60.0)
    kept = waits.begin()

    kept.set_result(7)
    waits.tidy()

    assert await kept == 7


async def test_one_timer_serves_all_and_goes_on_with_those_that_came_later() -> None:
    waits = Waits(0.05)
    early = waits.begin()
    await asyncio.sleep(0.02)
    late = waits.begin()
    early.set_result(1)

    async with asyncio.timeout(GUARD_SECONDS):
        assert await late is None


async def test_whoever_has_left_is_passed_over() -> None:
    waits = Waits(0.01)
    first, gone, last = waits.begin(), waits.begin(), waits.begin()
    gone.cancel()

    async with asyncio.timeout(GUARD_SECONDS):
        assert (await first, await last) == (None, None)
    assert gone.cancelled()
