"""wrk: as many requests as are answered, and what each of them cost the process."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.bench.machinery import Process, on_load_core

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PER_MICRO = 1e6
# The lines differ in both: what a connection remembers of them is no part of the comparison.
MANY_INSTALLATIONS = """
counter = 0
request = function()
  counter = (counter + 1) % 10000
  return wrk.format("GET", "/projects", {["X-ICR-Installation-Id"] = "inst-" .. counter})
end
"""
ONE_INSTALLATION = """
counter = 0
request = function()
  counter = (counter + 1) % 10000
  local headers = {["X-ICR-Installation-Id"] = "bench", ["X-Tool-Call"] = "call-" .. counter}
  return wrk.format("GET", "/projects", headers)
end
"""
# No two requests have the same head, and the origin gives the header line back. What a proxy
# remembers of the lines that it has read helps it as little as it does with real tools.
EVERY_HEAD_DIFFERENT = """
wrk.headers["X-ICR-Installation-Id"] = "bench"
counter = 0
request = function()
  counter = counter + 1
  wrk.headers["X-Tool-Call"] = "call-" .. counter
  return wrk.format("GET", "/projects?page=" .. counter)
end
"""


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
    """Give the CPU microseconds of a request, after a load that is not counted."""
    wrk(url, seconds=1, connections=connections, script=script)
    before = process.cpu()
    requests, bad = wrk(url, seconds=seconds, connections=connections, script=script)
    if not requests:
        raise RuntimeError(f"{process.name}: no request was answered in {seconds} s")
    if bad:
        raise RuntimeError(f"{process.name}: {bad} of {requests} answers were errors")
    return (process.cpu() - before) / requests * PER_MICRO


def per_request_amid(
    process: Process,
    url: str,
    asked: Callable[[], int],
    *,
    seconds: int,
    connections: int,
    script: Path | None = None,
) -> float:
    """Give the CPU microseconds of a request in the midst of a load, when all is connected.

    wrk leaves with a request on every connection, and the proxy then closes what it had upstream:
    the next load begins with as many handshakes as there are connections. So the load goes on
    while we look, and the upstream says how often it was asked.
    """
    lead = 1 + connections // 250
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(
            wrk, url, seconds=lead + seconds + 1, connections=connections, script=script
        )
        time.sleep(lead)
        requests, before = -asked(), -process.cpu()
        time.sleep(seconds)
        requests, spent = requests + asked(), before + process.cpu()
        answers, bad = load.result()
    if bad or requests <= 0:
        raise RuntimeError(f"{process.name}: {bad} of {answers} answers were errors")
    return spent / requests * PER_MICRO
