"""No place is lost and none is given twice, whoever leaves at whatever moment."""

from __future__ import annotations

import asyncio
import random

import pytest

from icr_proxy.upstream.pool import TimedSemaphore


async def waiting(slots: TimedSemaphore) -> None:
    """Wait for a place, as the pool does."""
    turn = slots.queue()
    try:
        await turn
    except BaseException:
        slots.cancel(turn)
        raise


async def entering(slots: TimedSemaphore) -> asyncio.Task[None]:
    """Have somebody begin to wait."""
    task = asyncio.ensure_future(waiting(slots))
    await asyncio.sleep(0)
    return task


async def test_places_are_taken_at_once_while_there_are_some() -> None:
    slots = TimedSemaphore(2, patience=5)

    assert [slots.acquire() for _ in range(3)] == [True, True, False]
    slots.release()
    assert slots.acquire()


async def test_first_come_first_served() -> None:
    slots = TimedSemaphore(1, patience=5)
    assert slots.acquire()
    first, second = await entering(slots), await entering(slots)
    assert slots.waiting == 2

    slots.release()
    await first

    assert not second.done()
    assert not slots.acquire(), "nobody overtakes who waits"
    slots.release()
    await second
    assert (slots.free, slots.waiting) == (0, 0)


async def test_who_waits_too_long_is_told_and_forgotten() -> None:
    slots = TimedSemaphore(1, patience=0.01)
    assert slots.acquire()

    with pytest.raises(TimeoutError):
        await waiting(slots)

    assert slots.waiting == 0
    slots.release()
    assert slots.free == 1


async def test_who_leaves_before_the_turn_is_passed_over() -> None:
    slots = TimedSemaphore(1, patience=5)
    assert slots.acquire()
    first, second = await entering(slots), await entering(slots)

    first.cancel()
    slots.release()

    await second
    await asyncio.wait([first])
    assert first.cancelled()
    assert (slots.free, slots.waiting) == (0, 0)


async def test_who_leaves_at_the_turn_gives_the_place_on() -> None:
    slots = TimedSemaphore(1, patience=5)
    assert slots.acquire()
    first, second = await entering(slots), await entering(slots)

    slots.release()
    first.cancel()

    await second
    await asyncio.wait([first])
    slots.release()
    assert slots.free == 1


async def test_who_alone_leaves_in_the_same_moment_loses_no_place() -> None:
    slots = TimedSemaphore(1, patience=5)
    assert slots.acquire()
    alone = await entering(slots)

    alone.cancel()
    slots.release()

    await asyncio.wait([alone])
    assert (slots.free, slots.waiting) == (1, 0)


async def test_each_has_the_same_patience_and_the_timer_goes_with_the_last() -> None:
    slots, loop = TimedSemaphore(1, patience=5), asyncio.get_running_loop()
    assert slots.acquire()
    first, second = await entering(slots), await entering(slots)
    slots._waiting[0] = (loop.time(), slots._waiting[0][1])

    slots._lose_patience(loop)

    await asyncio.wait([first])
    assert isinstance(first.exception(), TimeoutError)
    assert not second.done()
    slots.release()
    await second
    slots.release()

    assert slots._timer is None
    assert (slots.free, slots.waiting) == (1, 0)


@pytest.mark.parametrize("patience", [0.001, 0.01, 5])
async def test_a_storm_loses_no_place(patience: float) -> None:
    chance, slots, inside = random.Random(7), TimedSemaphore(3, patience=patience), 0

    async def one() -> None:
        nonlocal inside
        if not slots.acquire():
            try:
                await waiting(slots)
            except TimeoutError:
                return
        inside += 1
        assert inside <= 3
        try:
            await asyncio.sleep(chance.random() / 500)
        finally:
            inside -= 1
            slots.release()

    tasks = [asyncio.ensure_future(one()) for _ in range(200)]
    for task in tasks:
        if chance.random() < 0.3:
            await asyncio.sleep(0)
            task.cancel()
    await asyncio.wait(tasks)

    assert not [task for task in tasks if not task.cancelled() and task.exception()]
    assert (slots.free, slots.waiting, inside) == (3, 0, 0)
