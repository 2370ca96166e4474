"""What callers send, nearly valid: nothing but what they meant reaches the API.

`make fuzz` plays millions of these; here are a few thousand, the same ones each time.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.blocks import Block, play_block
from tests.fuzz.grammar import Case, make_case
from tests.fuzz.inbound import Inbound, inbound
from tests.fuzz.simulation import SimulatedLoop
from tests.support.app_fixture import request_head

if TYPE_CHECKING:
    from collections.abc import Iterator

STABLE = settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
CHUNKED = request_head("POST", extra="Transfer-Encoding: chunked\r\n")


class Scene:
    """A player and its loop."""

    def __init__(self, loop: SimulatedLoop, player: Inbound) -> None:
        self._loop = loop
        self.player = player

    def wrong(self, case: Case) -> list[str]:
        """Play and tell."""
        return self._loop.run_until_complete(self.player.play(case)).wrong


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    loop = SimulatedLoop()
    stack = AsyncExitStack()
    player = loop.run_until_complete(stack.enter_async_context(inbound(Random(1))))
    yield Scene(loop, player)
    loop.run_until_complete(stack.aclose())
    loop.close()


@STABLE
@given(random=st.randoms(use_true_random=False))
def test_nothing_but_what_was_meant_reaches_the_api(scene: Scene, random: Random) -> None:
    assert scene.wrong(make_case(random)) == []


@pytest.mark.parametrize("first", range(0, 2000, 1000))
def test_two_thousand_numbered_cases_leave_nothing_behind(first: int) -> None:
    played = play_block(Block(grammar="inbound", first=first, cases=1000))

    assert played.findings == []
    assert played.counts["forwarded"] > 400
    assert played.counts["bad-request"] > 200


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([CHUNKED + b"5\r\nhello\r", b"\n+"], id="a cut body that looked whole"),
        pytest.param(
            [CHUNKED + b"0\r\nX-T: v\r\n\r\n" + request_head()], id="a trailer as the next header"
        ),
        pytest.param(
            [CHUNKED + b"0\r\nX-ICR-Organization-Id: o\r\n\r\n", request_head()], id="as a tag"
        ),
        pytest.param(
            [request_head("CONNECT", "/", extra="Content-Length: 9\r\n") + request_head()],
            id="a body of CONNECT as a request",
        ),
        pytest.param(
            [request_head("PUT", extra="Transfer-Encoding: \r\n"), b"1\r\nx\r\n0\r\n\r\n"],
            id="an empty coding as no body",
        ),
        pytest.param(
            [CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"1\r\nx\r\n0\r\n\r\n"],
            id="chunks in HTTP/1.0",
        ),
        pytest.param(
            [request_head().replace(b"HTTP/1.1", b"HTTP/2.0"), request_head()],
            id="a request after one of another version",
        ),
        pytest.param(
            [request_head("POST", tag=None, extra="Transfer-Encoding: chunked\r\n"), b"zz\r\n"],
            id="garbage in a body that is thrown away",
        ),
    ],
)
@pytest.mark.parametrize("slowly", [True, False])
def test_what_was_found_once_stays_mended(
    scene: Scene, pieces: list[bytes], *, slowly: bool
) -> None:
    case = Case(pieces=pieces, is_plain=False, pause=[slowly] * len(pieces))

    assert scene.wrong(case) == []
