"""An API that is down is left alone, and found again."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from icr_proxy.clock import Clocks
from icr_proxy.config.models import CircuitConfig
from icr_proxy.upstream.dialer import parse_address
from tests.support.app_fixture import (
    Clock,
    RawAnswer,
    RunningProxy,
    ScriptedUpstream,
    Visit,
    call,
    config_for,
    minted,
    ok,
    request_head,
    running,
    scripted_upstream,
)

FAILURES = 3
PAUSE = 5.0
STATES = ("closed", "open", "half_open")


@dataclass
class Stage:
    """A proxy that has its token, before an API that can be put down."""

    proxy: RunningProxy
    api: ScriptedUpstream
    clock: Clock
    fate: str = "ok"

    async def call(self, method: str = "GET", *, tag: str = "inst-1") -> RawAnswer:
        return await call(self.proxy.port, request_head(method, tag=tag))

    async def open(self) -> None:
        """Let the API fail until it is left alone."""
        self.fate = "reset"
        for _ in range(FAILURES):
            assert (await self.call()).problem["code"] == "upstream-broken"
        self.api.heads.clear()

    @property
    def state(self) -> str:
        on = [each for each in STATES if self.proxy.metric("circuit_state", state=each) == 1]
        assert len(on) == 1
        return on[0]

    async def admin(self, path: str) -> RawAnswer:
        port = int(self.proxy.app.admin.address.rpartition(":")[2])
        return await call(port, b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())

    def events(self) -> list[str]:
        lines = self.proxy.log()
        return [line["event"] for line in lines if line["event"].startswith("circuit.")]


@asynccontextmanager
async def stage(*, failures: int = FAILURES) -> AsyncIterator[Stage]:
    async def script(visit: Visit, _head: bytes) -> None:
        match on.fate:
            case "ok":
                await visit.say(ok(b"done", headers=b"Connection: close\r\n"))
                visit.writer.close()
            case "500":
                await visit.say(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
            case "reset":
                visit.reset()

    clock = Clock()
    clocks = Clocks(now=time.time, clock=clock, random=lambda: 0.0)  # noqa: TID251  # near the API's
    circuit = CircuitConfig(failures=failures, pause=PAUSE)
    async with scripted_upstream(script) as api:
        config = config_for(api.url, upstream={"circuit": circuit})
        async with running(config, clocks=clocks) as proxy:
            on = Stage(proxy, api, clock)
            assert (await on.call()).status == 200
            api.heads.clear()
            yield on


async def test_an_api_that_fails_many_times_in_a_row_is_left_alone_and_found_again() -> None:
    async with stage() as on:
        await on.open()

        refused = await on.call()

        assert (refused.status, refused.problem["code"]) == (503, "circuit-open")
        assert refused.values(b"Retry-After") == [b"5"]
        assert on.api.heads == []
        assert on.state == "open"

        on.clock.at += PAUSE
        on.fate = "ok"
        assert (await on.call()).body == b"done"

        assert on.state == "closed"
        assert len(on.api.heads) == 1
        assert on.events() == ["circuit.opened", "circuit.half_open", "circuit.closed"]
        assert on.proxy.metric("circuit_transitions_total", to="open") == 1


async def test_a_request_that_was_refused_was_not_attempted() -> None:
    async with stage() as on:
        await on.open()
        await on.call("POST")

        line = on.proxy.log("request.done")[-1]

        assert (line["code"], line["attempts"], line["origin"]) == ("circuit-open", 0, "proxy")


async def test_ready_does_not_depend_on_it_and_status_tells() -> None:
    async with stage() as on:
        await on.open()

        status: dict[str, Any] = json.loads((await on.admin("/status")).body)

        assert (await on.admin("/readyz")).status == 200
        assert (status["circuit"], status["degraded"]) == ("open", ["circuit-open"])


async def test_a_token_that_must_be_minted_is_refused_by_the_same_code() -> None:
    async with stage() as on:
        await on.open()

        refused = await on.call(tag="inst-new")

        assert (refused.status, refused.problem["code"]) == (503, "circuit-open")
        assert refused.values(b"Retry-After") == [b"5"]
        assert on.api.mints == 1
        assert on.proxy.metric("token_mints_total", kind="installation", result="circuit-open") == 1


async def test_a_probe_that_fails_is_sent_once_even_if_it_is_a_write() -> None:
    async with stage() as on:
        await on.open()
        on.clock.at += 2 * PAUSE

        assert (await on.call("POST")).problem["code"] == "upstream-broken"
        assert (await on.call("POST")).problem["code"] == "circuit-open"
        assert len(on.api.heads) == 1


async def test_an_answer_is_an_answer_whatever_it_says() -> None:
    async with stage() as on:
        on.fate = "500"
        for _ in range(3 * FAILURES):
            assert (await on.call()).status == 500

        assert on.state == "closed"


async def test_a_circuit_that_is_off_refuses_nothing() -> None:
    async with stage(failures=0) as on:
        on.fate = "reset"
        for _ in range(20):
            assert (await on.call()).problem["code"] == "upstream-broken"

        assert len(on.api.heads) == 20
        assert on.events() == []


async def test_who_cannot_be_tried_again_is_told_what_happened_the_first_time() -> None:
    """Connecting failed and opened the circuit; that nothing more was tried is not the news."""
    async with stage(failures=1) as on:
        on.proxy.app.outbound.pool._address = parse_address("http://127.0.0.1:9", ca_file=None)

        assert (await on.call("POST")).problem["code"] == "upstream-unreachable"
        assert (await on.call("POST")).problem["code"] == "circuit-open"
        assert on.proxy.log("request.done")[-2]["attempts"] == 1
        assert on.proxy.metric("replays_total", result="retried") == 0


async def test_a_request_that_waits_for_a_token_outlasts_a_short_opening() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(b"done"))

    def mint(number: int) -> bytes:
        return b"nonsense\r\n\r\n" if number <= FAILURES - 1 else minted(number)

    circuit = CircuitConfig(failures=FAILURES - 1, pause=0.5)
    async with (
        scripted_upstream(script, mint=mint) as api,
        running(config_for(api.url, upstream={"circuit": circuit})) as proxy,
    ):
        answer = await call(proxy.port, request_head())

        assert answer.body == b"done"
        told = [x["event"] for x in proxy.log() if x["event"].startswith("circuit.")]
        assert told == ["circuit.opened", "circuit.half_open", "circuit.closed"]


async def test_of_many_requests_after_the_pause_one_probes() -> None:
    async with stage() as on:
        await on.open()
        on.clock.at += PAUSE

        answers = await asyncio.gather(*(on.call() for _ in range(20)))

        codes = Counter(answer.problem["code"] for answer in answers)
        assert codes == {"upstream-broken": 1, "circuit-open": 19}
        assert len(on.api.heads) == 1
