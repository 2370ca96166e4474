import asyncio
from collections.abc import Callable

import pytest

from icr_proxy.observability.dispatch import GATHERED_MOST, Each, OutcomeDispatcher
from icr_proxy.observability.outcome import Outcome
from tests.support.app_fixture import (
    Visit,
    call,
    config_for,
    ok,
    request_head,
    running,
    scripted_upstream,
)
from tests.support.fakes import outcome

GUARD_SECONDS = 10.0


class Reader:
    """A reader that keeps what it reads, and notes when all was handed on."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.gathering = OutcomeDispatcher(
            [Each(self._read("one")), Each(self._read("two"))],
            handed_on=lambda: self.heard.append("end"),
            failed=_never,
        )

    def _read(self, name: str) -> Callable[[Outcome], None]:
        return lambda read: self.heard.append(f"{name} {read.request_id}")


def _never(error: Exception) -> None:
    raise AssertionError from error


def numbered(number: int) -> Outcome:
    return outcome(request_id=str(number))


async def test_each_reader_gets_what_gathered_in_its_order_and_then_the_end_is_told() -> None:
    reader = Reader()
    for number in (1, 2):
        reader.gathering(numbered(number))

    assert reader.heard == []
    reader.gathering.flush()
    assert reader.heard == ["one 1", "one 2", "two 1", "two 2", "end"]


async def test_an_outcome_is_handed_on_by_itself_before_long() -> None:
    reader = Reader()
    reader.gathering(numbered(1))

    async with asyncio.timeout(GUARD_SECONDS):
        while not reader.heard:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.001)


async def test_nothing_waits_for_a_reader_that_asks_now() -> None:
    reader = Reader()
    reader.gathering.flush()

    assert reader.heard == []


async def test_no_more_than_so_many_wait() -> None:
    reader = Reader()
    for number in range(GATHERED_MOST):
        reader.gathering(numbered(number))

    assert len(reader.heard) == 2 * GATHERED_MOST + 1


async def test_a_reader_that_makes_others_look_at_once_hears_nothing_twice() -> None:
    """A log line is written after what waits; the line of a request is a log line."""
    heard: list[Outcome] = []
    gathering = OutcomeDispatcher([], failed=_never)
    gathering.readers = [Each(lambda _read: gathering.flush()), Each(heard.append)]
    for number in (1, 2):
        gathering(numbered(number))

    gathering.flush()

    assert [each.request_id for each in heard] == ["1", "2"]


@pytest.mark.parametrize("bad", [0, 1])
async def test_a_reader_that_fails_costs_the_others_nothing(bad: int) -> None:
    heard: list[Outcome] = []

    def fail(_read: Outcome) -> None:
        raise RuntimeError

    readers = [Each(heard.append), Each(heard.append)]
    readers[bad] = Each(fail)
    told: list[Exception] = []
    gathering = OutcomeDispatcher(readers, failed=told.append)
    gathering(numbered(1))
    gathering.flush()

    assert len(heard) == 1
    assert [type(error) for error in told] == [RuntimeError]


async def test_a_reader_that_fails_with_one_gets_the_others() -> None:
    heard: list[str] = []

    def read(outcome: Outcome) -> None:
        if outcome.request_id in "13":
            raise RuntimeError(outcome.request_id)
        heard.append(outcome.request_id)

    told: list[Exception] = []
    gathering = OutcomeDispatcher([Each(read)], failed=told.append)
    for number in range(5):
        gathering(numbered(number))
    gathering.flush()

    assert heard == ["0", "2", "4"]
    assert [str(error) for error in told] == ["1", "3"]


async def test_a_reader_that_always_fails_is_given_up() -> None:
    class Broken:
        def read_all(self, _outcomes: object) -> None:
            raise RuntimeError

    heard: list[Outcome] = []
    told: list[Exception] = []
    gathering = OutcomeDispatcher([Broken(), Each(heard.append)], failed=told.append)
    gathering(numbered(1))
    gathering.flush()

    assert len(heard) == 1
    assert told


async def test_who_looks_does_not_meet_what_a_reader_met_with() -> None:
    """Any log line and any scrape hand on first; what fails then is told in the log."""

    def fail(_read: Outcome) -> None:
        raise RuntimeError("crs_secret")

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok())

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        gathering = proxy.app.inbound.dispatcher
        gathering.readers = [Each(fail), *gathering.readers]
        await call(proxy.port, request_head())
        proxy.app.observers.metrics.render()
        counted = proxy.metric("bytes_total", direction="out")

    (told,) = proxy.log("library.error")
    assert told["error"] == "RuntimeError"
    assert b"crs_secret" not in proxy.stream.getvalue()
    assert counted
    assert proxy.log("request.done")
    assert proxy.log("proxy.stopped")
