"""The audit trail when things go wrong: killed processes, full disks, hands of others.

The program is the real one. What the emulator remembers of retirements is the truth that the trail
is compared with.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.audit.segments import list_segments
from icr_proxy.emulator.registry.entities import Account
from tests.support.app_fixture import RawAnswer, call, read_answer, request_head
from tests.support.audit_fixture import KEY, records_in
from tests.support.program import Program, environment, program_before, run_to_end

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator

KILLS = int(os.environ.get("ICR_TEST_KILLS", "20"))
GUARD_SECONDS = 20
WRITERS, READERS = 4, 2


@dataclass
class Load:
    """Callers that retire one credit after the other, until their connection breaks."""

    emulator: Emulator
    chance: random.Random
    answered: dict[str, list[str]] = field(default_factory=dict)
    """By connection, the requests that were answered, in order."""

    def __post_init__(self) -> None:
        self._installation = next(iter(self.emulator.world.installations.values()))
        account = Account(self._installation.organization.id, "inventory")
        held = self.emulator.world.book.holdings(account)
        self._credit = max(held, key=lambda credit: held[credit])
        self._number = 0
        self._until_enough = 0
        self._enough = asyncio.Event()

    def retirement(self, name: str) -> bytes:
        """Write a request that retires one credit; its comment is its id."""
        body = json.dumps(
            {
                "fromId": self._installation.organization.id,
                "reason": "offsetting",
                "beneficiaryName": "Somebody",
                "comment": name,
                "credit": {"id": self._credit, "amount": 1},
            }
        )
        extra = (
            f"X-Request-Id: {name}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
        )
        head = request_head("POST", "/v1/retire", tag=self._installation.id, extra=extra)
        return head + body.encode()

    def done(self) -> set[str]:
        """Name the requests that the API has really acted on."""
        retired = self.emulator.world.retirements.values()
        return {item.purpose.comment for item in retired if item.purpose.comment}

    async def _write(self, port: int, name: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answered = self.answered.setdefault(name, [])
        try:
            for number in range(10_000):
                writer.write(self.retirement(f"{name}-{number}"))
                await read_answer(reader)
                answered.append(f"{name}-{number}")
                self._until_enough -= 1
                if self._until_enough == 0:
                    self._enough.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _read(self, port: int) -> None:
        try:
            while True:
                await call(port, request_head(tag=self._installation.id))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    async def until_killed(self, program: Program) -> None:
        """Load a program and kill it at a moment that nobody chose."""
        self._number += 1
        self._until_enough = self.chance.randint(1, 40)
        self._enough.clear()
        async with asyncio.timeout(GUARD_SECONDS), asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(self._write(program.port, f"{self._number}-{number}"))
            for _ in range(READERS):
                group.create_task(self._read(program.port))
            await self._enough.wait()
            await asyncio.sleep(self.chance.uniform(0, 0.03))  # anywhere between two answers
            program.process.send_signal(signal.SIGKILL)
        await program.end()


def audited(tmp_path: Path, **more: str) -> dict[str, str]:
    (tmp_path / "audit.key").write_text(KEY.reveal())
    return {
        "ICR_PROXY_AUDIT__DIRECTORY": str(tmp_path / "trail"),
        "ICR_PROXY_AUDIT__KEY_FILE": str(tmp_path / "audit.key"),
        "ICR_PROXY_AUDIT__ANCHOR_FILE": str(tmp_path / "anchor"),
        "ICR_PROXY_AUDIT__HEAD_INTERVAL": "50ms",
        "ICR_PROXY_LOGS__LEVEL": "info",
        **more,
    }


async def verify(emulator: Emulator, tmp_path: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Verify with the command, as an auditor does."""
    env = environment(emulator, tmp_path, **audited(tmp_path))
    if not (tmp_path / "anchor").exists():
        del env["ICR_PROXY_AUDIT__ANCHOR_FILE"]
    code, out, err = await run_to_end(["audit", "verify", "--json", *words], env)
    assert err == ""
    return code, json.loads(out)


@pytest.mark.timeout(120 + 5 * KILLS)
async def test_whenever_it_is_killed_the_trail_knows_every_retirement(
    emulator: Emulator, tmp_path: Path
) -> None:
    load = Load(emulator, random.Random(KILLS))

    for _ in range(KILLS):
        async with program_before(emulator, tmp_path, **audited(tmp_path)) as program:
            await load.until_killed(program)
    async with program_before(emulator, tmp_path, **audited(tmp_path)) as program:
        program.process.send_signal(signal.SIGTERM)
        assert await program.end() == 0

    records = records_in(tmp_path / "trail")
    intents = {each["request_id"] for each in records if each["kind"] == "intent"}
    outcomes = {each["request_id"] for each in records if each["kind"] == "request"}
    # The promise of `fsync: always`: on a connection, the next request waits for the outcome.
    known_ended = {name for names in load.answered.values() for name in names[:-1]}
    assert len(load.done()) >= KILLS
    assert load.done() <= intents
    assert known_ended <= outcomes
    code, verdict = await verify(emulator, tmp_path)
    # A kill in the middle of a line leaves a torn one, which the next start sets aside.
    is_repaired = any(record["kind"] == "repair" for record in records)
    assert (code, verdict["result"]) == (0, "repaired" if is_repaired else "clean"), verdict
    assert {each["source"] for each in verdict["witnesses"]} == {str(tmp_path / "anchor")}
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert [record["kind"] for record in records].count("start") == KILLS + 1


async def test_what_an_anchor_knew_at_the_kill_is_in_the_trail(
    emulator: Emulator, tmp_path: Path
) -> None:
    load = Load(emulator, random.Random(1))

    async with program_before(emulator, tmp_path, **audited(tmp_path)) as program:
        async with asyncio.timeout(GUARD_SECONDS):
            while not (tmp_path / "anchor").exists():  # noqa: ASYNC110  # nobody tells of files
                await asyncio.sleep(0.01)
        await load.until_killed(program)
    known = [json.loads(line) for line in (tmp_path / "anchor").read_text().splitlines()]
    async with program_before(emulator, tmp_path, **audited(tmp_path)):
        pass

    hashes = [record["hash"] for record in records_in(tmp_path / "trail")]
    assert known
    assert [hashes[each["seq"] - 1] for each in known] == [each["hash"] for each in known]


async def retire(load: Load, program: Program, name: str) -> RawAnswer:
    return await call(program.port, load.retirement(name))


def limit_files(program: Program, size: int) -> None:
    """Let the program's files grow to this size and no further: what a full disk is to it."""
    _, hard = resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def size_of(tmp_path: Path) -> int:
    return list_segments(tmp_path / "trail")[-1].stat().st_size


async def test_a_full_disk_stops_what_cannot_be_recorded_until_there_is_space(
    emulator: Emulator, tmp_path: Path
) -> None:
    load = Load(emulator, random.Random(1))
    settings = audited(tmp_path, ICR_PROXY_AUDIT__MAX_WAIT="200ms")
    del settings["ICR_PROXY_AUDIT__ANCHOR_FILE"]  # it would be full, too

    async with program_before(emulator, tmp_path, **settings) as program:
        assert (await retire(load, program, "before")).status == 200
        limit_files(program, size_of(tmp_path) + 300)
        refused = [await retire(load, program, f"full-{n}") for n in range(3)]
        read = await call(program.port, request_head(tag=next(iter(emulator.world.installations))))
        await program.until("audit.failed")
        _, hard = resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE)
        limit_files(program, hard)
        await program.until("audit.recovered")
        assert (await retire(load, program, "after")).status == 200
        program.process.send_signal(signal.SIGTERM)
        assert await program.end() == 0

    assert {answer.problem["code"] for answer in (*refused, read)} == {"audit-unavailable"}
    assert all(answer.values(b"Retry-After") == [b"1"] for answer in refused)
    assert load.done() == {"before", "after"}
    ended = {
        record["request_id"]: (record["status"], record["attempts"])
        for record in records_in(tmp_path / "trail")
        if record["kind"] == "request" and record["changes_state"]
    }
    # Those that were refused were held in memory meanwhile.
    assert ended == {
        "before": (200, 1),
        "full-0": (503, 0),
        "full-1": (503, 0),
        "full-2": (503, 0),
        "after": (200, 1),
    }
    code, verdict = await verify(emulator, tmp_path, "--partial")
    assert (code, verdict["findings"]) == (0, [])


async def test_by_choice_a_full_disk_stops_nothing_and_what_was_lost_is_told(
    emulator: Emulator, tmp_path: Path
) -> None:
    load = Load(emulator, random.Random(1))
    settings = audited(
        tmp_path,
        ICR_PROXY_AUDIT__ON_FAILURE="continue",
        ICR_PROXY_AUDIT__MAX_WAIT="200ms",
        ICR_PROXY_AUDIT__QUEUE="4",
    )
    del settings["ICR_PROXY_AUDIT__ANCHOR_FILE"]

    async with program_before(emulator, tmp_path, **settings) as program:
        limit_files(program, size_of(tmp_path) + 300)
        for number in range(6):
            assert (await retire(load, program, f"full-{number}")).status == 200
        _, hard = resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE)
        limit_files(program, hard)
        await program.until("audit.recovered")
        assert (await retire(load, program, "after")).status == 200
        program.process.send_signal(signal.SIGTERM)
        assert await program.end() == 0

    records = records_in(tmp_path / "trail")
    recorded = {each["request_id"] for each in records if each["kind"] == "request"}
    [gap] = [each for each in records if each["kind"] == "gap"]
    assert "after" in recorded
    assert gap["lost"] == 7 - len(recorded) > 0
    code, verdict = await verify(emulator, tmp_path, "--partial")
    assert (code, [event["kind"] for event in verdict["events"]]) == (0, ["gap"])


async def test_a_file_that_is_renamed_from_outside_is_followed_by_a_new_one(
    emulator: Emulator, tmp_path: Path
) -> None:
    load = Load(emulator, random.Random(1))

    async with program_before(emulator, tmp_path, **audited(tmp_path)) as program:
        await retire(load, program, "before")
        [path] = list_segments(tmp_path / "trail")
        path.rename(tmp_path / "rotated.1")
        await retire(load, program, "after")
        program.process.send_signal(signal.SIGTERM)
        assert await program.end() == 0

    [moved] = [each for each in records_in(tmp_path / "trail") if each["kind"] == "moved"]
    assert (moved["file"], moved["found"]) == (path.name, "renamed")
    both = (str(tmp_path / "trail"), str(tmp_path / "rotated.1"))
    assert (await verify(emulator, tmp_path, *both))[0] == 0
    assert (await verify(emulator, tmp_path))[0] == 2


async def test_a_second_process_on_the_same_trail_does_not_start(
    emulator: Emulator, tmp_path: Path
) -> None:
    settings = audited(tmp_path)
    async with program_before(emulator, tmp_path, **settings) as program:
        code, _, err = await run_to_end(["run"], environment(emulator, tmp_path, **settings))

        assert code == 2
        assert f"in use by process {program.process.pid}" in err


async def test_a_retirement_is_found_a_moment_later_by_query_and_report(
    emulator: Emulator, tmp_path: Path
) -> None:
    load = Load(emulator, random.Random(1))
    env = environment(emulator, tmp_path, **audited(tmp_path))

    async with program_before(emulator, tmp_path, **audited(tmp_path)) as program:
        assert (await retire(load, program, "the-one")).status == 200
        _, found, _ = await run_to_end(["audit", "query", "--writes", "--json"], env)
        _, report, _ = await run_to_end(["audit", "report", "--format", "csv"], env)

    assert load.done() == {"the-one"}
    record = json.loads(found)
    assert (record["request_id"], record["operation"]) == ("the-one", "v1.retire")
    [line] = [line for line in report.splitlines() if "v1.retire" in line]
    assert ",done,200,the-one," in line
