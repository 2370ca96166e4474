"""What is measured: one function for each suite, giving numbers by contender."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.bench.contenders import Stage, running
from tests.bench.heads import fresh_script
from tests.bench.loads import (
    EVERY_HEAD_DIFFERENT,
    MANY_INSTALLATIONS,
    ONE_INSTALLATION,
    per_request,
    per_request_amid,
    wrk,
)
from tests.bench.machinery import LOAD_CORE, Process, on_load_core, until_answering
from tests.bench.measures import (
    CONNECTION,
    CPU_PLAIN,
    CPU_TLS,
    DIRECT,
    FRESH_PLAIN,
    FRESH_TLS,
    GROWN_DOWN,
    GROWN_UP,
    IDLE,
    MANY,
    P50,
    P99,
    SLOWLORIS,
    START,
    STREAM_DOWN,
    STREAM_UP,
    TOKENS,
    VARIED_PLAIN,
    VARIED_TLS,
    WIDE,
    Measure,
)
from tests.bench.origins import long_bodies, small_answers, times_asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WITH_DIFFERENT_HEADS = {"icr-proxy", "base", "envoy", "nginx"}
"""The others remember nothing; it would be the same number again."""
LONG = (("down", STREAM_DOWN, GROWN_DOWN), ("up", STREAM_UP, GROWN_UP))


@dataclass(slots=True)
class Bench:
    """The bench itself: where things are, how long and how often to measure."""

    tools: Path
    work: Path
    contenders: tuple[str, ...]
    rounds: int
    seconds: int
    other: Path | None = None
    """The Python of another checkout, which then takes part as `base`."""
    numbers: dict[Measure, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """By measure and contender, one number a round."""

    def note(self, measure: Measure, contender: str, number: float) -> None:
        """Keep a number, and show it: a run takes a while."""
        self.numbers[measure][contender].append(number)
        suite, what = measure
        print(f"  {suite:10} {what:34} {contender:10} {number:10.2f}", file=sys.stderr, flush=True)  # noqa: T201

    def stage(self, upstream: str) -> Stage:
        """Give what all contenders get."""
        return Stage(
            tools=self.tools,
            work=self.work,
            upstream=upstream,
            ca=self.work / "cert.pem",
            key=self.work / "app.pem",
        )

    def python(self, name: str) -> Path | None:
        """Give the Python of another checkout, if the contender comes from there."""
        return self.other if name == "base" else None

    @contextmanager
    def on_stage(self, name: str, upstream: str) -> Iterator[tuple[Process, str]]:
        """Start a contender before an upstream and wait until it serves."""
        with running(name, self.stage(upstream), python=self.python(name)) as (process, url):
            until_answering(process, f"{url}/projects")
            yield process, url

    def turns(self) -> Iterator[str]:
        """Give the contenders round by round, so that a slow minute hits all of them."""
        for number in range(self.rounds):
            print(f"  round {number + 1} of {self.rounds}", file=sys.stderr, flush=True)  # noqa: T201
            yield from self.contenders

    def tool(self, *arguments: str | Path, seconds: float = 60) -> dict[str, Any]:
        """Run a load of the bench tool to its end."""
        found: dict[str, Any] = json.loads(
            on_load_core((self.tools / "benchtool", *arguments), timeout=seconds)
        )
        return found

    @contextmanager
    def holding(self, url: str, connections: int, *arguments: str) -> Iterator[None]:
        """Hold connections open meanwhile."""
        command = (
            "taskset", "-c", str(LOAD_CORE), str(self.tools / "benchtool"), "hold",
            "-address", url.removeprefix("http://"), "-connections", str(connections), *arguments,
        )  # fmt: skip
        holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            if holder.stdout is None or not holder.stdout.readline():
                raise RuntimeError("the connections could not be opened")
            yield
        finally:
            holder.send_signal(signal.SIGTERM)
            holder.wait(20)


def cpu(bench: Bench) -> None:
    """CPU time per request, plain and TLS upstream; heads alike, different, of five clients."""
    script, fresh = bench.work / "different.lua", bench.work / "fresh.lua"
    script.write_text(EVERY_HEAD_DIFFERENT)
    fresh.write_text(fresh_script())
    for tls, alike, loads in (
        (False, CPU_PLAIN, ((VARIED_PLAIN, script), (FRESH_PLAIN, fresh))),
        (True, CPU_TLS, ((VARIED_TLS, script), (FRESH_TLS, fresh))),
    ):
        with small_answers(bench.work, tls=tls) as upstream:
            for name in bench.turns():
                with bench.on_stage(name, upstream) as (process, url):
                    cost = per_request(process, url, seconds=bench.seconds, connections=32)
                    bench.note(alike, name, cost)
                    for measure, load in loads if name in WITH_DIFFERENT_HEADS else ():
                        cost = per_request(
                            process, url, seconds=bench.seconds, connections=32, script=load
                        )
                        bench.note(measure, name, cost)


def latency(bench: Bench) -> None:
    """Latency at a constant rate, and without any proxy for comparison."""
    with small_answers(bench.work, tls=False) as plain, small_answers(bench.work, tls=True) as tls:
        for name in bench.turns():
            if name == bench.contenders[0]:
                _constant(bench, DIRECT, f"{plain}/projects")
            with bench.on_stage(name, tls) as (_, url):
                _constant(bench, name, f"{url}/projects")


def _constant(bench: Bench, name: str, url: str) -> None:
    found = bench.tool(
        "rate", "-url", url, "-rate", "500", "-seconds", str(bench.seconds + 1),
        seconds=bench.seconds + 30,
    )  # fmt: skip
    if found["failures"]:
        raise RuntimeError(f"{name}: {found['failures']} requests failed")
    bench.note(P50, name, found["p50_ms"])
    bench.note(P99, name, found["p99_ms"])


def stream(bench: Bench) -> None:
    """A GiB down and up: CPU and memory."""
    with long_bodies(bench.work, bench.tools) as upstream:
        for name in bench.turns():
            for direction, cost, growth in LONG:
                with bench.on_stage(name, upstream) as (process, url):
                    before, resident = process.cpu(), process.memory()
                    bench.tool("stream", "-url", url, "-direction", direction, seconds=120)
                    bench.note(cost, name, process.cpu() - before)
                    bench.note(growth, name, (process.peak() - resident) / 1024)


def footprint(bench: Bench) -> None:
    """Time to the first answer, memory when idle, memory of a thousand tokens."""
    with small_answers(bench.work, tls=False) as upstream:
        for name in bench.turns():
            with running(name, bench.stage(upstream), python=bench.python(name)) as (process, url):
                bench.note(START, name, 1e3 * until_answering(process, f"{url}/projects"))
                idle = process.memory()
                bench.note(IDLE, name, idle / 1024)
                if name in ("icr-proxy", "base"):
                    _ask_for(1000, url)
                    grown = (process.memory() - idle) / 1024
                    bench.note(TOKENS, name, grown)


def _ask_for(installations: int, url: str) -> None:
    import urllib.request  # noqa: PLC0415

    for number in range(installations):
        headers = {"X-ICR-Installation-Id": f"inst-{number}"}
        with urllib.request.urlopen(urllib.request.Request(f"{url}/projects", headers=headers)):
            pass


def idle(bench: Bench) -> None:
    """Memory per idle connection."""
    with small_answers(bench.work, tls=False) as upstream:
        for name in bench.turns():
            with bench.on_stage(name, upstream) as (process, url):
                wrk(url, seconds=1, connections=32)
                before = process.memory()
                with bench.holding(url, 10_000):
                    each = (process.memory() - before) / 10_000
                    bench.note(CONNECTION, name, each)


def growth(bench: Bench) -> None:
    """CPU per request with many installations, with many connections."""
    script, single = bench.work / "many.lua", bench.work / "single.lua"
    script.write_text(MANY_INSTALLATIONS)
    single.write_text(ONE_INSTALLATION)
    with small_answers(bench.work, tls=True) as upstream:
        asked = partial(times_asked, upstream, bench.work)
        for name in bench.turns():
            with bench.on_stage(name, upstream) as (process, url):
                cost = partial(per_request_amid, process, url, asked, seconds=bench.seconds)
                few, many = partial(cost, connections=32), partial(cost, connections=1000)
                # In turn, so that a machine that gets slower or faster meanwhile hits both.
                costs = [few(), many(), many(), few()]
                bench.note(WIDE, name, (costs[1] + costs[2]) / (costs[0] + costs[3]))
                if name in ("icr-proxy", "base"):
                    alone = few(script=single) + few(script=single)
                    _ask_for(10_000, url)
                    all_of_them = few(script=script) + few(script=script)
                    bench.note(MANY, name, all_of_them / alone)


def slowloris(bench: Bench) -> None:
    """The latency of others under a thousand dripping connections."""
    with small_answers(bench.work, tls=False) as upstream:
        for name in bench.turns():
            with bench.on_stage(name, upstream) as (_, url):
                alone = _median(bench, url)
                with bench.holding(url, 1000, "-drip", "1s"):
                    bench.note(SLOWLORIS, name, _median(bench, url) / alone)


def _median(bench: Bench, url: str) -> float:
    found = bench.tool(
        "rate", "-url", f"{url}/projects", "-rate", "200", "-seconds", str(bench.seconds + 1),
        seconds=bench.seconds + 30,
    )  # fmt: skip
    if found["failures"]:
        raise RuntimeError(f"{found['failures']} requests of others failed")
    return float(found["p50_ms"])


SUITES: dict[str, Callable[[Bench], None]] = {
    each.__name__: each for each in (cpu, latency, stream, footprint, idle, growth, slowloris)
}
