"""What counts against the API, for it, and not at all."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from icr_proxy.errors import (
    CallerGoneError,
    CircuitOpenError,
    UpstreamBrokenError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamLoopError,
    UpstreamTimeoutError,
    UpstreamTlsError,
    UpstreamUnreachableError,
)
from icr_proxy.upstream.circuit_breaker import (
    CircuitBreaker,
    GuardedUpstream,
    is_about_api,
    is_late,
)
from icr_proxy.upstream.interface import UpstreamRequest, UpstreamResponse
from tests.support.app_fixture import Clock, Parts, upstream_request


class Api:
    """An upstream that does what it is told, and counts what reaches it."""

    def __init__(self) -> None:
        self.asked = 0
        self.fate: BaseException | None = None
        self.hold: asyncio.Event | None = None

    async def send(
        self, request: UpstreamRequest, breaker: GuardedUpstream | None = None
    ) -> UpstreamResponse:
        assert breaker is not None
        number = breaker.allow_request(request)
        self.asked += 1
        try:
            if self.hold is not None:
                await self.hold.wait()
            if self.fate is not None:
                raise self.fate  # noqa: TRY301  # as it would come from below
        except BaseException as error:
            breaker.failed(number, error)
            raise
        breaker.answered()
        return cast("UpstreamResponse", None)


class Stage:
    def __init__(self, *, failures: int = 2) -> None:
        self.api = Api()
        self.clock = Clock()
        self.circuit = CircuitBreaker(
            failures=failures, pause=5.0, random=lambda: 0.0, moved=lambda _circuit: None
        )
        self.breaker = GuardedUpstream(self.api, circuit=self.circuit, now=self.clock)

    async def send(
        self, fate: BaseException | None, request: UpstreamRequest | None = None
    ) -> None:
        self.api.fate = fate
        try:
            await self.breaker.send(request or upstream_request())
        except BaseException as error:
            if error is not fate:
                raise


@pytest.fixture
def on() -> Stage:
    return Stage()


@pytest.mark.parametrize(
    ("error", "counts", "late"),
    [
        pytest.param(UpstreamUnreachableError("x"), True, False, id="unreachable"),
        pytest.param(UpstreamTlsError("x"), True, False, id="TLS"),
        pytest.param(UpstreamTimeoutError("x"), True, False, id="connecting took too long"),
        pytest.param(UpstreamTimeoutError("x", sent=True), True, True, id="the answer is late"),
        pytest.param(UpstreamBrokenError("x", sent=True), True, False, id="reset"),
        pytest.param(
            UpstreamBrokenError("x", sent=True, answered=True), True, False, id="half a head"
        ),
        pytest.param(
            UpstreamBrokenError("x", sent=True, answered=True, reused=True),
            True,
            False,
            id="half a head on a reused connection",
        ),
        pytest.param(
            UpstreamBrokenError("x", sent=True, reused=True), False, False, id="the idle race"
        ),
        pytest.param(UpstreamBusyError("x"), False, False, id="our own limit"),
        pytest.param(UpstreamLoopError("x"), False, False, id="our own port"),
    ],
)
def test_what_counts_against_the_api(error: UpstreamError, *, counts: bool, late: bool) -> None:
    assert is_about_api(error) is counts
    assert is_late(error) is late


async def test_while_it_is_open_nothing_is_sent(on: Stage) -> None:
    await on.send(UpstreamUnreachableError("x"))
    await on.send(UpstreamUnreachableError("x"))

    with pytest.raises(CircuitOpenError) as caught:
        await on.send(None)

    assert on.api.asked == 2
    assert caught.value.retry_after == 5.0
    assert not caught.value.sent


async def test_any_answer_counts_for_the_api(on: Stage) -> None:
    for _ in range(5):
        await on.send(UpstreamTimeoutError("x", sent=True))
        await on.send(None)

    assert on.circuit.state == "closed"


@pytest.mark.parametrize(
    "fate",
    [
        pytest.param(UpstreamBusyError("x"), id="busy"),
        pytest.param(UpstreamBrokenError("x", sent=True, reused=True), id="idle race"),
        pytest.param(CallerGoneError("x"), id="the caller left"),
        pytest.param(asyncio.CancelledError(), id="cancelled"),
    ],
)
async def test_what_says_nothing_of_the_api_neither_opens_nor_blocks(
    on: Stage, fate: BaseException
) -> None:
    for _ in range(10):
        await on.send(fate)
    assert on.circuit.state == "closed"
    await on.send(UpstreamUnreachableError("x"))
    await on.send(UpstreamUnreachableError("x"))
    on.clock.at += 5.0

    await on.send(fate)
    await on.send(None)

    assert on.circuit.state == "closed"


async def test_one_probe_at_a_time(on: Stage) -> None:
    await on.send(UpstreamUnreachableError("x"))
    await on.send(UpstreamUnreachableError("x"))
    on.clock.at += 5.0
    on.api.fate, on.api.hold = None, asyncio.Event()

    probe = asyncio.ensure_future(on.breaker.send(upstream_request()))
    await asyncio.sleep(0)
    for _ in range(10):
        with pytest.raises(CircuitOpenError):
            await on.breaker.send(upstream_request())
    on.api.hold.set()
    await probe
    await on.breaker.send(upstream_request())

    assert on.api.asked == 2 + 1 + 1


@pytest.mark.parametrize(
    ("request_", "probes"),
    [
        pytest.param(upstream_request(), True, id="a read"),
        pytest.param(upstream_request("POST", is_write=True), False, id="a write"),
        pytest.param(upstream_request("GET", body=Parts(b"x")), False, id="a read with a body"),
    ],
)
async def test_a_read_probes_first(on: Stage, request_: UpstreamRequest, *, probes: bool) -> None:
    await on.send(UpstreamUnreachableError("x"))
    await on.send(UpstreamUnreachableError("x"))
    on.clock.at += 5.0

    try:
        await on.send(None, request_)
    except CircuitOpenError:
        assert not probes
    else:
        assert probes
