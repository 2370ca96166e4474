"""Many cases of one grammar, one after the other on one proxy."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Protocol

from tests.fuzz.grammar import make_case
from tests.fuzz.hostile import make_saying
from tests.fuzz.inbound import inbound
from tests.fuzz.outbound import outbound
from tests.fuzz.pathmodels import play as play_path
from tests.fuzz.simulation import SimulatedLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager


class Player(Protocol):
    """Plays what it draws."""

    counts: Counter[str]

    async def draw_and_play(self, random: Random) -> tuple[object, list[str]]:
        """Give the case, and what was wrong about it."""


@dataclass(slots=True)
class Block:
    """What is to be played, and then what came of it."""

    grammar: str
    first: int
    cases: int
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


class InboundPlayer:
    """Plays what callers send."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.counts: Counter[str] = Counter()

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[Player]:
        """Set the stage."""
        async with inbound(self._random) as self._inbound:
            self.counts = self._inbound.counts
            yield self

    async def draw_and_play(self, random: Random) -> tuple[object, list[str]]:
        """Draw and play."""
        case = make_case(random)
        return case, (await self._inbound.play(case)).wrong


class OutboundPlayer:
    """Plays what an API answers."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.counts: Counter[str] = Counter()

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[Player]:
        """Set the stage."""
        async with outbound(self._random) as self._outbound:
            self.counts = self._outbound.counts
            yield self

    async def draw_and_play(self, random: Random) -> tuple[object, list[str]]:
        """Draw and play."""
        saying = make_saying(random)
        return saying, (await self._outbound.play(saying)).wrong


class PathPlayer:
    """Plays targets that servers may read in several ways."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[Player]:
        """Set no stage: nothing is sent."""
        yield self

    async def draw_and_play(self, random: Random) -> tuple[object, list[str]]:
        """Draw and play."""
        return None, play_path(random, counts=self.counts)


GRAMMARS: dict[str, Callable[[Random], AbstractAsyncContextManager[Player]]] = {
    "inbound": lambda random: InboundPlayer(random).ready(),
    "answers": lambda random: OutboundPlayer(random).ready(),
    "paths": lambda _: PathPlayer().ready(),
}


def play_block(block: Block) -> Block:
    """Play all of it; what nobody could catch is looked for at the end."""
    unraisable: list[str] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda each: unraisable.append(repr(each.exc_value))
    loop = SimulatedLoop()
    try:
        loop.run_until_complete(_play(block))
        gc.collect()
    finally:
        loop.close()
        sys.unraisablehook = before
    unraisable += loop.complaints
    block.findings += [f"{block.grammar} from {block.first}: {each}" for each in unraisable]
    return block


async def _play(block: Block) -> None:
    api_random = Random()  # one for all, so that it can be set back for each case
    async with GRAMMARS[block.grammar](api_random) as player:
        for number in range(block.first, block.first + block.cases):
            api_random.seed(number)
            case, wrong = await player.draw_and_play(Random(number))
            for each in wrong:
                block.findings.append(f"{block.grammar} {number}: {each}\n    {case!r}")
        block.counts += player.counts
