"""The feed of open consoles, its clock held by the test; frames are real time."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from icr_proxy.admin.console_feed import (
    FRAME_SECONDS,
    RECENT,
    SUBSCRIBERS_MOST,
    ConsoleFeed,
    Subscription,
)
from icr_proxy.admin.console_frames import RING, ROWS_MOST
from icr_proxy.errors import DrainingError, OverloadedError
from tests.support.app_fixture import Clock
from tests.support.fakes import outcome

GUARD_SECONDS = 10.0


class Stage:
    def __init__(self) -> None:
        self.clock = Clock(at=1_700_000_000.0)
        self.feed = ConsoleFeed(now=self.clock, in_flight=lambda: 3)

    def tell(self, count: int = 1, **facts: Any) -> None:
        for number in range(count):
            at = {"started_at": self.clock.at - 0.02, "request_id": f"r{number}"}
            self.feed.read_all([outcome(**at | facts)])


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    stage.feed.end("over")


def events(data: bytes | None) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in (data or b"").split(b"\n\n")[:-1]:
        name, text = block.split(b"\n")
        found.append((name.decode()[7:], json.loads(text[6:])))
    return found


async def following(subscription: Subscription) -> list[tuple[str, dict[str, Any]]]:
    async with asyncio.timeout(GUARD_SECONDS):
        return events(await subscription.next())


async def test_a_request_arrives_in_a_frame(stage: Stage) -> None:
    with stage.feed.subscription() as (_, subscription):
        stage.tell(installation="in-1", status=404)

        ((name, frame),) = await following(subscription)

    assert name == "frame"
    assert [row["request_id"] for row in frame["rows"]] == ["r0"]
    assert frame["left_out"] == 0
    assert frame["in_flight"] == 3
    assert frame["now"] == stage.clock.at
    ((_, ok, client, _, _, p50, _, _),) = frame["seconds"]
    assert (ok, client) == (0, 1)
    assert p50 == pytest.approx(20, rel=0.1)
    assert frame["minute"][:5] == [60, 0, 1, 0, 0]
    assert frame["installations"]["in-1"]["last_error"] == "404"


async def test_a_thousand_requests_are_one_frame_with_few_rows(stage: Stage) -> None:
    with stage.feed.subscription() as (_, subscription):
        stage.tell(1000)

        ((_, frame),) = await following(subscription)

    assert len(frame["rows"]) == ROWS_MOST
    assert frame["left_out"] == 1000 - ROWS_MOST
    assert sum(row[1] for row in frame["seconds"]) == 1000


async def test_nothing_is_sent_while_nothing_happens(stage: Stage) -> None:
    with stage.feed.subscription() as (_, subscription):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(FRAME_SECONDS * 3):
                await subscription.next()
        stage.tell()

        ((name, _),) = await following(subscription)

    assert name == "frame"


async def test_a_new_console_sees_what_has_just_happened(stage: Stage) -> None:
    stage.tell(5)

    with stage.feed.subscription() as (snapshot, _):
        ((name, told),) = events(snapshot)

    assert name == "snapshot"
    assert [row["request_id"] for row in told["rows"]] == ["r0", "r1", "r2", "r3", "r4"]
    assert sum(row[1] for row in told["seconds"]) == 5
    assert told["installations"]["in-1"]["requests"] == 5


async def test_it_says_from_when_on_it_knows_everything(stage: Stage) -> None:
    """The ring holds the last requests; if there were more, what came before is not known."""
    began = stage.clock.at
    stage.tell(RECENT - 1)
    with stage.feed.subscription() as (snapshot, _):
        assert events(snapshot)[0][1]["since"] == began

    late = Stage()
    late.clock.at += 100
    late.tell(RECENT)
    with late.feed.subscription() as (snapshot, _):
        assert events(snapshot)[0][1]["since"] == pytest.approx(began + 100)


async def test_the_ring_is_bounded(stage: Stage) -> None:
    stage.tell(RECENT * 5)

    with stage.feed.subscription() as (snapshot, _):
        assert len(events(snapshot)[0][1]["rows"]) == RECENT


async def test_while_no_console_is_open_nothing_is_counted_and_no_task_runs(stage: Stage) -> None:
    before = asyncio.all_tasks()

    stage.tell(10)

    assert not stage.feed.watchers
    assert stage.feed._timeline.rows(now=stage.clock.at) == []
    assert asyncio.all_tasks() == before


async def test_when_the_last_console_has_gone_no_task_runs(stage: Stage) -> None:
    before = asyncio.all_tasks()
    with stage.feed.subscription():
        during = bool(stage.feed.watchers)

    await asyncio.sleep(0)

    assert (during, bool(stage.feed.watchers)) == (True, False)
    assert asyncio.all_tasks() == before


async def test_a_page_that_is_loaded_again_keeps_its_charts(stage: Stage) -> None:
    with stage.feed.subscription():
        pass
    stage.tell(RECENT * 2)

    with stage.feed.subscription() as (snapshot, subscription):
        ((_, told),) = events(snapshot)
        assert sum(row[1] for row in told["seconds"]) == RECENT * 2
        stage.tell(1, request_id="new")

        ((_, frame),) = await following(subscription)

    assert [row["request_id"] for row in frame["rows"]] == ["new"]


async def test_long_after_the_last_console_has_gone_counting_ends(stage: Stage) -> None:
    with stage.feed.subscription():
        stage.tell()
    assert stage.feed._forgetting is not None

    stage.feed._forget()  # what the timer does
    stage.tell(RECENT + 1)

    assert stage.feed._timeline.rows(now=stage.clock.at) == []
    with stage.feed.subscription() as (snapshot, _):
        assert sum(row[1] for row in events(snapshot)[0][1]["seconds"]) == RECENT


async def test_a_slow_reader_is_told_what_it_missed_and_gets_all_counts_anew(stage: Stage) -> None:
    with stage.feed.subscription() as (_, subscription):
        for number in range(RING + 2):
            stage.tell(10, request_id=str(number))
            stage.feed._flush()  # what the task does, four times a second

        told = await following(subscription)

    assert [name for name, _ in told] == ["missed", "snapshot"] + ["frame"] * RING
    assert told[0][1] == {"frames": 2, "requests": 20}
    snapshot = told[1][1]
    assert snapshot["rows"] == []
    assert sum(row[1] for row in snapshot["seconds"]) == (RING + 2) * 10


async def test_one_slow_reader_costs_another_nothing(stage: Stage) -> None:
    with (
        stage.feed.subscription() as (_, _slow),
        stage.feed.subscription() as (_, quick),
    ):
        names = []
        for _ in range(RING * 2):
            stage.tell(1)
            stage.feed._flush()
            names += [name for name, _ in await following(quick)]

    assert names == ["frame"] * RING * 2


async def test_there_are_only_so_many_consoles(stage: Stage) -> None:
    opened = [stage.feed.subscription() for _ in range(SUBSCRIBERS_MOST)]
    for each in opened:
        each.__enter__()

    with pytest.raises(OverloadedError), stage.feed.subscription():
        pass

    opened.pop().__exit__(None, None, None)
    with stage.feed.subscription():
        pass
    for each in opened:
        each.__exit__(None, None, None)


async def test_at_the_end_a_console_is_told_what_waits_and_why(stage: Stage) -> None:
    with stage.feed.subscription() as (_, subscription):
        stage.tell()
        stage.feed.end("draining")

        told = await following(subscription)
        last = await subscription.next()

    assert [name for name, _ in told] == ["frame", "end"]
    assert told[1][1] == {"reason": "draining"}
    assert last is None


async def test_a_console_that_waits_is_woken_by_the_end(stage: Stage) -> None:
    with stage.feed.subscription() as (_, subscription):
        waiting = asyncio.ensure_future(following(subscription))
        await asyncio.sleep(0)

        stage.feed.end("draining")

        assert await waiting == [("end", {"reason": "draining"})]


async def test_after_the_end_none_is_opened(stage: Stage) -> None:
    stage.feed.end("draining")

    with pytest.raises(DrainingError), stage.feed.subscription():
        pass


async def test_what_policy_would_refuse_is_counted_with_or_without_a_console(stage: Stage) -> None:
    stage.tell(2, would_refuse="no-retirements")
    with stage.feed.subscription() as (snapshot, _):
        stage.tell(1, would_refuse="read-only")

    assert events(snapshot)[0][1]["would_refuse"] == {"no-retirements": 2}
    assert stage.feed.would_refuse == {"no-retirements": 2, "read-only": 1}
