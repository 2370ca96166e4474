"""A tool that times out and tries again: credits are retired once, and it is told why."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from icr_proxy.config.inbound_models import PolicyConfig
from icr_proxy.emulator.settings import Fault
from tests.integration.test_ledger import BROKEN, Retirer, done
from tests.support.app_fixture import RawAnswer, proxy_before, read_answer
from tests.support.program import GUARD_SECONDS, program_before

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator
    from tests.support.app_fixture import RunningProxy

ON = {"ICR_PROXY_POLICY__DUPLICATE_GUARD": "60s"}
# The credits have moved, and nobody is told in the time that the tool is willing to wait.
LATE = Fault(kind="slow", seconds=30, when="after")


async def curl(url: str, request: bytes, *more: str) -> tuple[int, str]:
    """Retire with curl, which waits for half a second and tries again; give status and body."""
    head, _, body = request.partition(b"\r\n\r\n")
    tag = head.decode().partition("X-ICR-Installation-Id: ")[2].split("\r\n")[0]
    words = [
        "-sS",
        "--max-time",
        "0.5",
        "--retry",
        "2",
        "--retry-delay",
        "1",
        "-w",
        "\n%{http_code}",
    ]
    words += ["-H", f"X-ICR-Installation-Id: {tag}", "-H", "Content-Type: application/json"]
    words += ["--data-binary", body.decode(), *more, f"{url}/v1/retire"]
    process = await asyncio.create_subprocess_exec(
        "curl", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(GUARD_SECONDS):
        out, _ = await process.communicate()
    said, _, status = out.decode().rpartition("\n")
    return int(status), said


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
@pytest.mark.parametrize(
    ("more", "times"), [(ON, 1), ({}, 2)], ids=["with the guard", "without it, twice"]
)
async def test_a_tool_that_times_out_and_tries_again_retires_once(
    emulator: Emulator, tmp_path: Path, more: dict[str, str], times: int
) -> None:
    emulator.world.faults.requests.append(LATE)
    async with program_before(emulator, tmp_path, **more) as program:
        request = Retirer(program.port, emulator).request("r-1")
        status, said = await curl(program.url, request)

        assert done(emulator) == {"r-1": times}
        if times == 1:
            first = await program.until("request.done")
            second = await program.until("request.done")
            assert (status, json.loads(said)["code"]) == (409, "duplicate-suspected")
            assert first["request_id"] in json.loads(said)["message"]
            assert second["duplicate_of"] == first["request_id"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
async def test_a_tool_that_meant_it_twice_retires_twice(emulator: Emulator, tmp_path: Path) -> None:
    async with program_before(emulator, tmp_path, **ON) as program:
        request = Retirer(program.port, emulator).request("r-1")
        statuses = [(await curl(program.url, request))[0] for _ in range(3)]

    assert statuses == [200] * 3
    assert done(emulator) == {"r-1": 3}


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
async def test_a_tool_with_a_key_gets_the_answer_that_it_missed(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with program_before(emulator, tmp_path, **ON) as program:
        request = Retirer(program.port, emulator).request("r-1")
        answers = [
            await curl(program.url, request, "-H", 'Idempotency-Key: "one"') for _ in range(3)
        ]

    assert [status for status, _ in answers] == [200] * 3
    assert len({json.loads(said)["transactionId"] for _, said in answers}) == 1
    assert done(emulator) == {"r-1": 1}


# -- by chance ------------------------------------------------------------------------------------

FAULTS = (
    Fault(kind="status", status=503, when="before"),
    Fault(kind="status", status=503, when="after"),
    Fault(kind="status", status=503, headers={"Retry-After": "1"}, when="before"),
    Fault(kind="status", status=429, when="before"),
    Fault(kind="status", status=500, when="before"),
    Fault(kind="status", status=500, when="after"),
    Fault(kind="status", status=502, when="after"),
    Fault(kind="status", status=504, when="after"),
    Fault(kind="status", status=401, body="", when="head"),
    Fault(kind="reset", when="head"),
    Fault(kind="reset", when="before"),
    Fault(kind="reset", when="after"),
    Fault(kind="truncated", when="after"),
    Fault(kind="empty", when="after"),
    Fault(kind="malformed", when="after"),
    Fault(kind="slow", seconds=0.15, when="before"),
    Fault(kind="slow", seconds=0.15, when="after"),
    Fault(kind="hang", seconds=1, when="before"),
    Fault(kind="hang", seconds=1, when="after"),
)
TRIES = 5


async def attempt(port: int, request: bytes, *, patience: float) -> RawAnswer | None:
    """Send on a connection of its own, as tools do; nothing if it broke or took too long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    reading = asyncio.ensure_future(read_answer(reader))
    await asyncio.wait([reading], timeout=patience)
    writer.transport.abort()  # what is in the kernel now, this tool never learns
    try:
        return await reading
    except BROKEN:
        return None


async def insist(retirer: Retirer, comment: str, *, keyed: bool, chance: random.Random) -> bool:
    """Try until it is answered with success, a few times; with a key once more. Say if it was."""
    request = retirer.request(comment)
    if keyed:
        request = request.replace(b"\r\n", b"\r\nIdempotency-Key: %b\r\n" % comment.encode(), 1)
    for _ in range(TRIES):
        answer = await attempt(retirer.port, request, patience=chance.choice((0.1, 5)))
        if answer is not None and answer.status == 200:
            if keyed:
                await attempt(retirer.port, request, patience=5)
            return True
    return False


def doing_their_worst(emulator: Emulator, chance: random.Random) -> None:
    emulator.world.faults.requests.extend(
        chance.choice(FAULTS) if chance.random() < 0.5 else Fault(kind="slow", seconds=0)
        for _ in range(2000)
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("keyed", [False, True], ids=["by the body", "by a key"])
async def test_whatever_fails_and_however_often_tools_try_nothing_is_retired_twice(
    emulator: Emulator, seed: int, *, keyed: bool
) -> None:
    chance = random.Random(seed)
    doing_their_worst(emulator, chance)
    policy = PolicyConfig(duplicate_guard=600.0)
    async with proxy_before(emulator, policy=policy) as proxy:
        retirer = Retirer(proxy, emulator)

        async def tool(number: int) -> dict[str, bool]:
            comments = [f"r-{number}-{n}" for n in range(12)]
            return {c: await insist(retirer, c, keyed=keyed, chance=chance) for c in comments}

        told = await asyncio.gather(*map(tool, range(8)))
        refused = proxy.metric("duplicates_total", result="refused")
        replayed = proxy.metric("duplicates_total", result="replayed")

    times = done(emulator)
    assert max(times.values()) == 1
    assert {c for each in told for c, success in each.items() if success} <= set(times)
    assert refused > 0
    assert (replayed > 0) is keyed
    assert emulator.world.book.totals() == dict(emulator.world.book.issued)


async def test_without_the_guard_the_same_tools_do_retire_twice(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    """What the tests above would overlook if they were blind."""
    chance = random.Random(0)
    doing_their_worst(emulator, chance)
    retirer = Retirer(proxy, emulator)

    async def tool(number: int) -> None:
        for n in range(12):
            await insist(retirer, f"r-{number}-{n}", keyed=False, chance=chance)

    await asyncio.gather(*map(tool, range(8)))

    assert Counter(done(emulator).values())[1] < len(done(emulator))
