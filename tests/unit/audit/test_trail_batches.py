from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from icr_proxy.audit.trail import BATCH_MOST, WriteBatcher
from icr_proxy.audit.writer_thread import AwaitedEntry
from tests.support.audit_fixture import read_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from icr_proxy.audit.writer_thread import Entry

GUARD_SECONDS = 20.0


class Stage:
    """A handover to somebody who keeps what comes, as it comes."""

    def __init__(self) -> None:
        self.handed: list[Sequence[Entry]] = []
        self.handover = WriteBatcher(self.handed.append)

    def add(self, *entries: Entry) -> None:
        for each in entries:
            self.handover.add(each)

    async def until(self, count: int) -> None:
        """Wait until so many records were handed over."""
        async with asyncio.timeout(GUARD_SECONDS):
            while sum(map(len, self.handed)) < count:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0)


def alone(number: int) -> Entry:
    """Give a record for which nobody waits."""
    return read_of(number)


def awaited(number: int) -> Entry:
    """Give a record for which somebody waits."""
    return AwaitedEntry(read_of(number), asyncio.get_running_loop().create_future())


async def test_what_somebody_waits_for_goes_at_the_end_of_the_turn() -> None:
    scene = Stage()
    entry = awaited(1)

    scene.add(entry)
    assert scene.handed == []
    await asyncio.sleep(0)

    assert scene.handed == [[entry]]


async def test_what_one_turn_brings_goes_as_one_and_in_its_order() -> None:
    scene = Stage()
    entries = [alone(1), awaited(2), alone(3), awaited(4)]

    scene.add(*entries)
    await asyncio.sleep(0)

    assert scene.handed == [entries]


async def test_what_nobody_waits_for_gathers_for_a_moment() -> None:
    scene = Stage()
    scene.add(alone(1))
    await asyncio.sleep(0)
    assert scene.handed == []
    scene.add(alone(2))

    await scene.until(2)

    assert len(scene.handed) == 1


async def test_what_somebody_waits_for_waits_for_no_later_turn() -> None:
    scene = Stage()
    for number in (1, 2):
        scene.add(awaited(number))
        await asyncio.sleep(0)

    assert [len(each) for each in scene.handed] == [1, 1]


async def test_no_more_than_so_many_gather() -> None:
    scene = Stage()

    scene.add(*(alone(number) for number in range(BATCH_MOST + 1)))

    assert [len(each) for each in scene.handed] == [BATCH_MOST]


async def test_at_the_end_all_is_handed_over_at_once() -> None:
    scene = Stage()
    scene.add(alone(1), awaited(2))

    scene.handover.flush()
    scene.handover.flush()
    await asyncio.sleep(0)

    assert [len(each) for each in scene.handed] == [2]
