"""Whoever is turned away is counted, told of in the log, and answered late."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from icr_proxy.config.models import LogsConfig
from icr_proxy.observability.log import Lines, Threshold, build_log
from icr_proxy.policy.caller_auth import MOST_HELD, Doorkeeper
from tests.support.app_fixture import Clock


@dataclass
class Door:
    """A doorkeeper whose pauses end when the test says so."""

    clock: Clock = field(default_factory=Clock)
    counted: Counter[str] = field(default_factory=Counter)
    pauses: list[float] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stream: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        log = build_log(
            LogsConfig(format="json"),
            lines=Lines(self.stream),
            threshold=Threshold("info"),
            now=self.clock,
        )
        self.keeper = Doorkeeper(
            log=log, count=lambda reason: self.counted.update([reason]), now=self.clock,
            pause=self.pause,
        )  # fmt: skip

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.over.wait()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


async def test_the_first_is_answered_at_once_and_the_next_later_and_later() -> None:
    door = Door()
    door.over.set()

    for _ in range(4):
        await door.keeper.turn_away("10.0.0.1", "unknown")

    assert door.pauses == [0.1, 0.2, 0.4]
    assert door.counted == {"unknown": 4}


async def test_only_so_many_wait_at_once() -> None:
    door = Door()
    await door.keeper.turn_away("10.0.0.1", "missing")

    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(door.keeper.turn_away("10.0.0.1", "missing"))
            for _ in range(MOST_HELD)
        ]
        await asyncio.sleep(0)
        await door.keeper.turn_away("10.0.0.1", "missing")

        assert not any(task.done() for task in waiting)
        assert door.keeper.held == MOST_HELD
        door.over.set()

    assert door.keeper.held == 0


async def test_whoever_goes_away_gives_up_his_place() -> None:
    door = Door()
    await door.keeper.turn_away("10.0.0.1", "missing")
    waiting = asyncio.ensure_future(door.keeper.turn_away("10.0.0.1", "missing"))
    await asyncio.sleep(0)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert door.keeper.held == 0


async def test_the_log_tells_who_and_why_and_now_and_then_how_many() -> None:
    door = Door()
    door.over.set()

    for _ in range(5):
        await door.keeper.turn_away("10.0.0.1", "unknown")
    door.clock.at += 2
    await door.keeper.turn_away("10.0.0.2", "certificate")

    told = [{key: line[key] for key in line if key not in ("ts", "event")} for line in door.lines]
    assert {line["event"] for line in door.lines} == {"caller.refused"}
    assert told == [
        {"level": "warning", "peer": "10.0.0.1", "reason": "unknown", "failures": 1,
         "delay_ms": 0, "unlogged": 0},
        {"level": "warning", "peer": "10.0.0.2", "reason": "certificate", "failures": 1,
         "delay_ms": 0, "unlogged": 4},
    ]  # fmt: skip
