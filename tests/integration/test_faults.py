"""Whatever fails, and when: a retirement reaches the API once at most, and the caller learns.

More than two thousand runs, drawn by chance from all faults, bodies, connections and tokens. Each
lane has a proxy and an API of its own and makes one run after the other, so a seed says what
happens: set `ICR_FAULTS_SEED` to the one that a failure shows.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from icr_proxy.config.inbound_models import TokensConfig
from icr_proxy.config.models import CircuitConfig, TimeoutsConfig
from tests.integration.test_upstream_tls import serving
from tests.support.app_fixture import (
    RunningProxy,
    call,
    config_for,
    read_answer,
    request_head,
    running,
)
from tests.support.certificate_authority import authority, server_certificate
from tests.support.scripted_upstream import AT_THE_DOOR, SAYS, FaultyApi, faulty_api

SEED = os.environ.get("ICR_FAULTS_SEED", "1")
LANES = 16
RUNS = 70  # in each lane, on each of two event loops: 2,240
CONNECTIONS = 4
BROKEN = "upstream-broken"

# What a caller may be told. A success is checked against what the API said besides.
FATES: dict[str, set[str]] = {
    "answer": {"200"},
    "answer and close": {"200"},
    "a second answer": {"200"},
    "500": {"500"},
    # A fault at the door is over with the first connection, or met by the second one as well.
    "refuse": {"upstream-unreachable"},
    "reset at once": {"200", BROKEN, "upstream-unreachable", "upstream-tls"},
    "TLS alert": {"200", "upstream-tls", BROKEN},
    "hang at once": {"200", "upstream-timeout"},
    "reset after a byte of the head": {BROKEN},
    "reset after the head": {BROKEN},
    "reset in the body": {BROKEN},
    "does not take the body": {"upstream-timeout"},
    # The answer is passed on, unless the reset that follows destroys it on the way.
    "early answer": {"413", "cut"},
    "early answer and close": {"413", "cut", BROKEN},
    "idle close": {"200", BROKEN},
    **{fate: {BROKEN} for fate in SAYS if fate != "500"},
    "half a body": {"cut"},
    "half a chunked body": {"cut"},
    "hang": {"upstream-timeout"},
    "hang in the head": {"upstream-timeout"},
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One retirement, and what it meets."""

    mark: str
    fate: str
    doors: int
    size: int
    is_chunked: bool
    is_reused: bool
    is_refused: bool

    @property
    def request(self) -> bytes:
        body = b'{"mark":"%b","fromId":"org-1","filler":"' % self.mark.encode()
        body += b"x" * self.size + b'"}'
        if self.is_chunked:
            framing, body = (
                "Transfer-Encoding: chunked",
                b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            )
        else:
            framing = f"Content-Length: {len(body)}"
        # A new installation for each refused token: the proxy rations how often it mints anew.
        tag = self.mark if self.is_refused else "inst-1"
        extra = f"{framing}\r\nConnection: close\r\n"
        return request_head("POST", "/v1/retire", tag=tag, extra=extra) + body


def draw(chance: random.Random, mark: str, *, is_tls: bool) -> Run:
    fates = [fate for fate in FATES if is_tls or fate != "TLS alert"]
    fate = chance.choice(fates)
    return Run(
        mark=mark,
        fate=fate,
        doors=chance.choice([1, 2]) if fate in AT_THE_DOOR else 0,
        size=chance.choice([0, 500, 70_000, 300_000]),
        is_chunked=chance.random() < 0.4,
        is_reused=fate == "idle close" or (fate not in AT_THE_DOOR and chance.random() < 0.5),
        is_refused=fate not in AT_THE_DOOR and chance.random() < 0.25,
    )


async def retire(port: int, run: Run) -> tuple[str, bytes]:
    """Give what the caller learns: a status, a code of the proxy's, or `cut`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        with suppress(ConnectionError):  # the answer tells
            writer.write(run.request)
            await writer.drain()

    try:
        async with asyncio.timeout(30):
            _, answer = await asyncio.gather(send(), read_answer(reader))
    except (asyncio.IncompleteReadError, ConnectionError):
        return "cut", b""
    finally:
        writer.transport.abort()
    codes = answer.values(b"X-ICR-Proxy-Error")
    return (codes[0].decode() if codes else str(answer.status)), answer.body


async def one(proxy: RunningProxy, api: FaultyApi, run: Run) -> str:
    if run.is_reused or run.is_refused:
        tag = run.mark if run.is_refused else "inst-1"
        if run.fate == "idle close":
            await api.order(run.fate, doors=0, refuse_token=False)
        await call(proxy.port, request_head(tag=tag, extra="Connection: close\r\n"))
    if not run.is_reused:
        proxy.app.outbound.pool.close()
    await api.order(run.fate, doors=run.doors, refuse_token=run.is_refused)
    told, body = await retire(proxy.port, run)
    await proxy.app.inbound.in_flight.until_idle()
    check(run, api, told, body)
    await api.calm()
    return told


def check(run: Run, api: FaultyApi, told: str, body: bytes) -> None:
    mark = run.mark.encode()
    where = f"ICR_FAULTS_SEED={SEED}: {run}, the caller was told {told}"

    assert api.acted[mark] <= 1, where
    assert api.seen(mark) <= 1 + run.is_refused, where
    if told == "200":
        assert api.said[mark] == 200, where
        assert body == b'{"retired":"%b"}' % mark, where
    if run.is_refused and api.acted[mark] == 0 and told == "403":
        assert run.size > 60_000, where  # beyond the replay buffer, so the refusal is the answer
        return
    # A machine that is busy with something else may let any time run out, and it is told so.
    assert told in FATES[run.fate] | {"upstream-timeout", "mint-timeout"}, where


async def lane(number: int, folder: Path) -> Counter[str]:
    is_tls = number % 2 == 1
    chance = random.Random(f"{SEED}-{number}")
    context = serving(server_certificate(), folder) if is_tls else None
    upstream = {
        "ca_file": folder / "ca.pem",
        "connections": CONNECTIONS,
        "circuit": CircuitConfig(failures=0),
        "timeouts": TimeoutsConfig(connect=0.5, first_byte=0.5, idle=0.5),
    }
    told: Counter[str] = Counter()
    async with faulty_api(tls=context) as api:
        config = config_for(api.url, upstream=upstream, tokens=TokensConfig(mint_timeout=5.0))
        async with running(config) as proxy:
            await call(proxy.port, request_head())
            for at in range(RUNS):
                told[await one(proxy, api, draw(chance, f"{number}-{at}", is_tls=is_tls))] += 1
            pool = proxy.app.outbound.pool
            assert (pool.active, pool.waiting, pool.free) == (0, 0, CONNECTIONS)
            assert proxy.app.inbound.in_flight.count == 0
    return told


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_whatever_fails_a_retirement_is_sent_once_and_the_caller_learns_the_truth(
    run: Callable[[Awaitable[None]], None], tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority().cert_pem)

    async def scene() -> None:
        folders = [tmp_path / str(number) for number in range(LANES)]
        for folder in folders:
            folder.mkdir()
            (folder / "ca.pem").write_bytes(authority().cert_pem)
        async with asyncio.TaskGroup() as tasks:
            lanes = [tasks.create_task(lane(at, folder)) for at, folder in enumerate(folders)]
        told = sum((each.result() for each in lanes), Counter[str]())

        assert told.total() == LANES * RUNS
        assert {"200", "500", "413", BROKEN, "upstream-timeout", "cut"} <= set(told)
        assert told["200"] > LANES * RUNS / 20

    run(scene())
