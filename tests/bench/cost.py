"""What logs, metrics and audit cost: the proxy with each of them off and on, in turns.

The limit that we set ourselves: all on may cost at most 35 % more than all off.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.contenders import settings_file
from tests.bench.loads import per_request
from tests.bench.machinery import (
    CONTENDER_CORE,
    Process,
    folder_in,
    free_port,
    started,
    until_answering,
)
from tests.bench.measures import ALL_OFF
from tests.bench.origins import small_answers
from tests.bench.suites import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHOUT = {
    ALL_OFF: "logs,metrics,audit",
    "logs": "metrics,audit",
    "metrics": "logs,audit",
    "audit": "logs,metrics",
    "all on": "",
}
WRITES = """
wrk.method = "POST"
wrk.headers["X-ICR-Installation-Id"] = "bench"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"creditIds":["0b9e4a52-6a3f-4c1e-9b55-0c8e1f1f7a10"],"to":"org-2","amount":12}'
request = function() return wrk.format(nil, "/v1/transfer") end
"""
# Reads as the trail comes; writes without waiting for the disk, whose speed is the disk's.
LOADS = (("reads", "always"), ("writes, fsync: interval", "interval"))


def cost(bench: Bench) -> None:
    """CPU time per request with logs, metrics and audit each off and on."""
    writes = bench.work / "writes.lua"
    writes.write_text(WRITES)
    with small_answers(bench.work, tls=False) as upstream:
        for number in range(bench.rounds):
            print(f"  round {number + 1} of {bench.rounds}", file=sys.stderr, flush=True)  # noqa: T201
            for load, fsync in LOADS:
                script = writes if load.startswith("writes") else None
                for name in WITHOUT:
                    with _variant(name, bench, upstream, fsync=fsync) as (process, url):
                        each = per_request(
                            process, url, seconds=bench.seconds, connections=32, script=script
                        )
                        bench.note(("cost", f"µs CPU/request, {load}"), name, each)


@contextmanager
def _variant(
    name: str, bench: Bench, upstream: str, *, fsync: str
) -> Iterator[tuple[Process, str]]:
    port = free_port()
    work = folder_in(bench.work, "variant")
    key = work / "audit.key"
    key.write_text("k" * 64)  # of nobody
    config = settings_file(bench.stage(upstream), port, work)
    with config.open("a") as file:
        file.write(f"audit: {{directory: {work}/audit, key_file: {key}, fsync: {fsync}}}\n")
    command = (
        sys.executable, "-m", "tests.bench.variant", "--without", WITHOUT[name], "--config", config,
    )  # fmt: skip
    with started(
        name,
        command,
        core=CONTENDER_CORE,
        log=work / "out.log",
        env={"PYTHONPATH": str(Path.cwd())},
        cwd=work,
    ) as process:
        url = f"http://127.0.0.1:{port}"
        until_answering(process, f"{url}/projects")
        yield process, url
