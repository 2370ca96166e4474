"""The one timer of a connection rings when it should, however often it is set anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from icr_proxy.upstream.connection import DeadlineTimer


class FakeLoop:
    """A loop whose time moves when a test says so; counts the timers it gave."""

    def __init__(self) -> None:
        self.now = 100.0
        self.made = 0
        self._due: list[tuple[float, FakeTimer, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        self.made += 1
        timer = FakeTimer()
        self._due.append((when, timer, callback))
        return timer

    @property
    def pending(self) -> list[float]:
        return [when for when, timer, _ in self._due if not timer.is_cancelled]

    def go_to(self, when: float) -> None:
        while due := sorted(x for x in self.pending if x <= when):
            self.now = due[0]
            [entry] = [x for x in self._due if x[0] == due[0] and not x[1].is_cancelled]
            self._due.remove(entry)
            entry[2]()
        self.now = when


class FakeTimer:
    """Can be cancelled."""

    is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def alarm(loop: FakeLoop) -> DeadlineTimer:
    return DeadlineTimer(loop)  # type: ignore[arg-type]  # all of a loop that it uses


@pytest.fixture
def rings(loop: FakeLoop) -> Rings:
    return Rings(loop)


class Rings:
    """When it rang."""

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop
        self.at: list[float] = []

    def __call__(self) -> None:
        self.at.append(self._loop.now)


def test_it_rings_once_in_time(loop: FakeLoop, alarm: DeadlineTimer, rings: Rings) -> None:
    alarm.start(5, rings)
    loop.go_to(200)

    assert rings.at == [105]
    assert loop.pending == []


def test_a_later_time_takes_the_place_of_an_earlier(
    loop: FakeLoop, alarm: DeadlineTimer, rings: Rings
) -> None:
    alarm.start(5, rings)
    loop.go_to(104)
    alarm.start(5, rings)
    loop.go_to(200)

    assert rings.at == [109]


def test_an_earlier_time_takes_the_place_of_a_later(
    loop: FakeLoop, alarm: DeadlineTimer, rings: Rings
) -> None:
    alarm.start(60, rings)
    alarm.start(5, rings)

    assert loop.pending == [105]
    loop.go_to(300)
    assert rings.at == [105]


def test_a_thousand_waits_need_few_timers(
    loop: FakeLoop, alarm: DeadlineTimer, rings: Rings
) -> None:
    for number in range(1000):
        loop.go_to(100 + number / 100)
        alarm.start(60, rings)
        alarm.start(30, rings)

    assert loop.made <= 3
    assert rings.at == []


def test_what_is_cleared_does_not_ring_and_is_forgotten(
    loop: FakeLoop, alarm: DeadlineTimer, rings: Rings
) -> None:
    alarm.start(5, rings)
    alarm.cancel()
    loop.go_to(200)
    assert rings.at == []

    alarm.start(5, rings)
    loop.go_to(300)
    assert rings.at == [205]


def test_what_is_stopped_leaves_no_timer(
    loop: FakeLoop, alarm: DeadlineTimer, rings: Rings
) -> None:
    alarm.stop()
    alarm.start(5, rings)
    alarm.stop()

    assert loop.pending == []


def test_it_may_be_set_from_its_own_ring(
    loop: FakeLoop, alarm: DeadlineTimer, rings: Rings
) -> None:
    alarm.start(5, lambda: alarm.start(5, rings))
    loop.go_to(200)

    assert rings.at == [110]


async def test_on_a_real_loop_it_is_not_early_and_not_twice() -> None:
    loop = asyncio.get_running_loop()
    rung: asyncio.Queue[float] = asyncio.Queue()
    began = loop.time()

    DeadlineTimer(loop).start(0.0204, lambda: rung.put_nowait(loop.time()))

    async with asyncio.timeout(5):
        assert await rung.get() - began >= 0.0184
    await asyncio.sleep(0.03)
    assert rung.empty()
