"""What is measured: one function for each suite, giving numbers by contender."""

from __future__ import annotations

import json
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.bench.contenders import Stage, running
from tests.bench.machinery import LOAD_CORE, Process, on_load_core, until_answering
from tests.bench.origins import long_bodies, small_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GIB = 1 << 30
PER_MICRO = 1e6
MANY_INSTALLATIONS = """
counter = 0
request = function()
  counter = (counter + 1) % 10000
  return wrk.format("GET", "/projects", {["X-ICR-Installation-Id"] = "inst-" .. counter})
end
"""


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
    numbers: dict[tuple[str, str], dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """(suite, what) -> contender -> one number a round."""

    def note(self, suite: str, what: str, contender: str, number: float) -> None:
        """Keep a number, and show it: a run takes a while."""
        self.numbers[suite, what][contender].append(number)
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

    @contextmanager
    def on_stage(self, name: str, upstream: str) -> Iterator[tuple[Process, str]]:
        """Start a contender before an upstream and wait until it serves."""
        python = self.other if name == "base" else None
        with running(name, self.stage(upstream), python=python) as (process, url):
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


def wrk(url: str, *, seconds: int, connections: int, script: Path | None = None) -> tuple[int, int]:
    """Ask as fast as is answered; give how many answers came, and how many were no 200."""
    scripted = ("-s", script) if script else ("-H", "X-ICR-Installation-Id: bench")
    said = on_load_core(
        ("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *scripted, f"{url}/projects"),
        timeout=seconds + 30,
    ).decode()
    requests = re.search(r"(\d+) requests in", said)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    if requests is None:
        raise RuntimeError(f"wrk said: {said}")
    return int(requests[1]), int(bad[1]) if bad else 0


def per_request(
    process: Process, url: str, *, seconds: int, connections: int, script: Path | None = None
) -> float:
    """Give the CPU microseconds of a request."""
    wrk(url, seconds=1, connections=connections, script=script)
    before = process.cpu()
    requests, bad = wrk(url, seconds=seconds, connections=connections, script=script)
    if bad:
        raise RuntimeError(f"{process.name}: {bad} of {requests} answers were errors")
    return (process.cpu() - before) / requests * PER_MICRO


def cpu(bench: Bench) -> None:
    """CPU time per request, plain and TLS upstream."""
    for tls in (False, True):
        with small_answers(bench.work, tls=tls) as upstream:
            for name in bench.turns():
                with bench.on_stage(name, upstream) as (process, url):
                    cost = per_request(process, url, seconds=bench.seconds, connections=32)
                    what = "µs CPU/request, TLS upstream" if tls else "µs CPU/request, plain"
                    bench.note("cpu", what, name, cost)


def latency(bench: Bench) -> None:
    """Latency at a constant rate, and without any proxy for comparison."""
    with small_answers(bench.work, tls=False) as plain, small_answers(bench.work, tls=True) as tls:
        for name in bench.turns():
            with bench.on_stage(name, tls) as (_, url):
                _constant(bench, name, f"{url}/projects")
        for _ in range(bench.rounds):
            _constant(bench, "(direct)", f"{plain}/projects")


def _constant(bench: Bench, name: str, url: str) -> None:
    found = bench.tool(
        "rate", "-url", url, "-rate", "500", "-seconds", str(bench.seconds + 1),
        seconds=bench.seconds + 30,
    )  # fmt: skip
    if found["failures"]:
        raise RuntimeError(f"{name}: {found['failures']} requests failed")
    for quantile in ("p50", "p99"):
        bench.note("latency", f"{quantile} ms at 500/s", name, found[f"{quantile}_ms"])


def stream(bench: Bench) -> None:
    """A GiB down and up: CPU and memory."""
    with long_bodies(bench.work, bench.tools) as upstream:
        for name in bench.turns():
            for direction in ("down", "up"):
                with bench.on_stage(name, upstream) as (process, url):
                    before, resident = process.cpu(), process.memory()
                    bench.tool("stream", "-url", url, "-direction", direction, seconds=120)
                    spent = process.cpu() - before
                    bench.note("stream", f"CPU s/GiB {direction}", name, spent)
                    grown = (process.peak() - resident) / 1024
                    bench.note("stream", f"MiB growth {direction}", name, grown)


def footprint(bench: Bench) -> None:
    """Time to the first answer, memory when idle, memory of a thousand tokens."""
    with small_answers(bench.work, tls=False) as upstream:
        for name in bench.turns():
            began = time.monotonic()
            with bench.on_stage(name, upstream) as (process, url):
                bench.note(
                    "footprint", "ms to first answer", name, 1e3 * (time.monotonic() - began)
                )
                idle = process.memory()
                bench.note("footprint", "MiB idle", name, idle / 1024)
                if name in ("icr-proxy", "base"):
                    _ask_for(1000, url)
                    grown = (process.memory() - idle) / 1024
                    bench.note("footprint", "MiB for 1,000 tokens more", name, grown)


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
                    bench.note("idle", "KiB/idle connection", name, each)


def growth(bench: Bench) -> None:
    """CPU per request with many installations, with many connections."""
    script = bench.work / "many.lua"
    script.write_text(MANY_INSTALLATIONS)
    with small_answers(bench.work, tls=True) as upstream:
        for name in bench.turns():
            with bench.on_stage(name, upstream) as (process, url):
                one = per_request(process, url, seconds=bench.seconds, connections=32)
                wide = per_request(process, url, seconds=bench.seconds, connections=1000)
                bench.note("growth", "1,000 connections / 32", name, wide / one)
                if name in ("icr-proxy", "base"):
                    _ask_for(10_000, url)
                    many = per_request(
                        process, url, seconds=bench.seconds, connections=32, script=script
                    )
                    bench.note("growth", "10,000 installations / 1", name, many / one)


def slowloris(bench: Bench) -> None:
    """The latency of others under a thousand dripping connections."""
    with small_answers(bench.work, tls=False) as upstream:
        for name in bench.turns():
            with bench.on_stage(name, upstream) as (_, url):
                alone = _median(bench, url)
                with bench.holding(url, 1000, "-drip", "1s"):
                    bench.note("slowloris", "p50 with / without", name, _median(bench, url) / alone)


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


def summary(numbers: list[float]) -> tuple[float, float, float]:
    """Give median, lowest and highest."""
    return statistics.median(numbers), min(numbers), max(numbers)
