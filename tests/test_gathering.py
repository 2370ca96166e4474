import asyncio
from collections.abc import Callable

import pytest

from proxy.gathering import GATHERED_MOST, Each, Gathering
from proxy.outcome import Outcome
from tests.fakes import outcome

GUARD_SECONDS = 10.0


class Reader:
    """A reader that keeps what it reads, and notes when all was handed on."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.gathering = Gathering(
            [Each(self._read("one")), Each(self._read("two"))],
            handed_on=lambda: self.heard.append("end"),
        )

    def _read(self, name: str) -> Callable[[Outcome], None]:
        return lambda read: self.heard.append(f"{name} {read.request_id}")


def numbered(number: int) -> Outcome:
    return outcome(request_id=str(number))


async def test_each_reader_gets_what_gathered_in_its_order_and_then_the_end_is_told() -> None:
    reader = Reader()
    for number in (1, 2):
        reader.gathering(numbered(number))

    assert reader.heard == []
    reader.gathering.hand_on()
    assert reader.heard == ["one 1", "one 2", "two 1", "two 2", "end"]


async def test_an_outcome_is_handed_on_by_itself_before_long() -> None:
    reader = Reader()
    reader.gathering(numbered(1))

    async with asyncio.timeout(GUARD_SECONDS):
        while not reader.heard:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.001)


async def test_nothing_waits_for_a_reader_that_asks_now() -> None:
    reader = Reader()
    reader.gathering.hand_on()

    assert reader.heard == []


async def test_no_more_than_so_many_wait() -> None:
    reader = Reader()
    for number in range(GATHERED_MOST):
        reader.gathering(numbered(number))

    assert len(reader.heard) == 2 * GATHERED_MOST + 1


async def test_a_reader_that_makes_others_look_at_once_hears_nothing_twice() -> None:
    """A log line is written after what waits; the line of a request is a log line."""
    heard: list[Outcome] = []
    gathering = Gathering([])
    gathering.readers = [Each(lambda _read: gathering.hand_on()), Each(heard.append)]
    for number in (1, 2):
        gathering(numbered(number))

    gathering.hand_on()

    assert [each.request_id for each in heard] == ["1", "2"]


@pytest.mark.parametrize("bad", [0, 1])
async def test_a_reader_that_fails_costs_the_others_nothing(bad: int) -> None:
    heard: list[Outcome] = []

    def fail(_read: Outcome) -> None:
        raise RuntimeError

    readers = [Each(heard.append), Each(heard.append)]
    readers[bad] = Each(fail)
    gathering = Gathering(readers)
    gathering(numbered(1))

    with pytest.raises(RuntimeError):
        gathering.hand_on()

    assert len(heard) == 1


async def test_a_reader_that_fails_with_one_gets_the_others() -> None:
    heard: list[str] = []

    def read(outcome: Outcome) -> None:
        if outcome.request_id in "13":
            raise RuntimeError(outcome.request_id)
        heard.append(outcome.request_id)

    gathering = Gathering([Each(read)])
    for number in range(5):
        gathering(numbered(number))

    with pytest.raises(RuntimeError):
        gathering.hand_on()

    assert heard == ["0", "2", "4"]
