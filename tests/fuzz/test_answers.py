"""What an API answers, nearly valid: a caller gets it exactly, or is told that it broke.

And whoever asks next gets nothing of it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.blocks import Block, play_block
from tests.fuzz.hostile import POISON, Saying, make_saying
from tests.fuzz.outbound import Outbound, outbound
from tests.fuzz.simulation import SimulatedLoop
from tests.fuzz.test_inbound import STABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Scene:
    """A player and its loop."""

    def __init__(self, loop: SimulatedLoop, player: Outbound) -> None:
        self._loop = loop
        self.player = player

    def wrong(self, saying: Saying) -> list[str]:
        """Play and tell."""
        return self._loop.run_until_complete(self.player.play(saying)).wrong


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    loop = SimulatedLoop()
    stack = AsyncExitStack()
    player = loop.run_until_complete(stack.enter_async_context(outbound(Random(1))))
    yield Scene(loop, player)
    loop.run_until_complete(stack.aclose())
    loop.close()


@STABLE
@given(random=st.randoms(use_true_random=False))
def test_an_answer_arrives_exactly_or_is_known_to_be_broken(scene: Scene, random: Random) -> None:
    assert scene.wrong(make_saying(random)) == []


@pytest.mark.parametrize("first", range(0, 2000, 1000))
def test_two_thousand_numbered_answers_reach_nobody_else(first: int) -> None:
    played = play_block(Block(grammar="answers", first=first, cases=1000))

    assert played.findings == []
    assert played.counts["whole"] > 400
    assert played.counts["refused"] > 100


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(
            b"HTTP/1.1 199 x\r\nContent-Length: 12\r\n\r\nof the first" + LENGTH,
            id="the body of an interim answer as the real one's",
        ),
        pytest.param(
            b"HTTP/1.1 199 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + LENGTH,
            id="chunks of an interim answer",
        ),
        pytest.param(b"HTTP/1.1 000 x\r\nContent-Length: 2\r\n\r\nof" + LENGTH, id="no status"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n",
            id="chunked twice",
        ),
        pytest.param(LENGTH + POISON, id="an answer too many"),
        pytest.param(LENGTH + b"\r\n", id="an empty line too many"),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
@pytest.mark.parametrize("ending", ["stay", "close", "reset"])
def test_what_was_found_once_stays_mended(
    scene: Scene, stream: bytes, method: bytes, ending: str
) -> None:
    for at in range(0, len(stream), 7):
        pieces = [stream[:at], stream[at:]]
        saying = Saying(method, pieces, is_plain=False, ending=ending, second=1, pause=[True] * 2)

        assert scene.wrong(saying) == []
