"""The program from start to end, as an init system sees it: ready, reload, drain, exit code."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from icr_proxy.admin.client import ask
from icr_proxy.credentials.signing_key import parse_signing_key
from icr_proxy.emulator.settings import Fault
from tests.support.app_fixture import call, read_answer, request_head
from tests.support.program import Program, environment, program_before, run_to_end
from tests.unit.credentials.test_key_ring_choice import another_pem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator

SLOW = "/_emulator/slow?seconds=1"


def tagged(emulator: Emulator, target: str) -> bytes:
    return request_head(target=target, tag=next(iter(emulator.world.installations)))


def revocation(program: Program) -> tuple[int, int, int]:
    (line,) = [line for line in program.lines if line["event"] == "tokens.revoked"]
    return line["revoked"], line["failed"], line["left"]


@asynccontextmanager
async def in_flight(
    program: Program, emulator: Emulator, target: str
) -> AsyncIterator[asyncio.StreamReader]:
    """Send a request; go on when the API has it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    try:
        writer.write(tagged(emulator, target))
        # The emulator tells nobody what arrives, so it is asked.
        while not any(seen.target == target for seen in emulator.world.requests):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield reader
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_sigterm_finishes_what_is_in_flight_and_exits_with_0(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with (
        program_before(emulator, tmp_path) as program,
        in_flight(program, emulator, SLOW) as reader,
    ):
        program.process.send_signal(signal.SIGTERM)
        await program.until("proxy.draining")
        not_ready = await asyncio.to_thread(ask, program.admin, "/readyz")
        alive = await asyncio.to_thread(ask, program.admin, "/healthz")
        answer = await read_answer(reader)
        code = await program.end()

    assert not_ready == "not ready"
    assert alive is None
    assert answer.status == 200
    assert answer.values(b"Connection") == [b"close"]
    assert code == 0
    assert [line["event"] for line in program.lines][-1] == "proxy.stopped"


async def test_new_connections_are_refused_while_draining(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with (
        program_before(emulator, tmp_path) as program,
        in_flight(program, emulator, SLOW) as reader,
    ):
        program.process.send_signal(signal.SIGTERM)
        await program.until("proxy.draining")
        await asyncio.to_thread(ask, program.admin, "/readyz")

        with pytest.raises(ConnectionError):
            await call(program.port, tagged(emulator, "/projects"))

        assert (await read_answer(reader)).status == 200


async def test_min_drain_keeps_serving_while_not_ready(emulator: Emulator, tmp_path: Path) -> None:
    async with program_before(emulator, tmp_path, ICR_PROXY_SHUTDOWN__MIN_DRAIN="1s") as program:
        program.process.send_signal(signal.SIGTERM)
        await program.until("proxy.draining")

        not_ready = await asyncio.to_thread(ask, program.admin, "/readyz")
        answer = await call(program.port, tagged(emulator, "/_emulator/echo/x"))
        code = await program.end()

    assert not_ready == "not ready"
    assert answer.status == 200
    assert code == 0


async def test_what_outlives_max_drain_is_cut_off_and_told(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with (
        program_before(emulator, tmp_path, ICR_PROXY_SHUTDOWN__MAX_DRAIN="200ms") as program,
        in_flight(program, emulator, "/_emulator/slow?seconds=60") as reader,
    ):
        program.process.send_signal(signal.SIGTERM)
        code = await program.end()
        rest = await asyncio.gather(reader.read(), return_exceptions=True)

    assert code == 1
    assert [line["in_flight"] for line in program.lines if line["event"] == "proxy.cut_off"] == [1]
    assert rest[0] == b"" or isinstance(rest[0], ConnectionError)


async def test_a_second_sigterm_ends_at_once(emulator: Emulator, tmp_path: Path) -> None:
    async with (
        program_before(emulator, tmp_path) as program,
        in_flight(program, emulator, "/_emulator/slow?seconds=60"),
    ):
        program.process.send_signal(signal.SIGTERM)
        await program.until("proxy.draining")

        program.process.send_signal(signal.SIGTERM)
        code = await program.end()

    assert code == 143


async def test_tokens_are_dead_at_the_api_after_sigterm(emulator: Emulator, tmp_path: Path) -> None:
    more = {
        "ICR_PROXY_TOKENS__REVOKE_ON_EXIT": "true",
        "ICR_PROXY_LISTENERS__0__UNTAGGED": "app",
    }
    async with program_before(emulator, tmp_path, **more) as program:
        for tag in [*list(emulator.world.installations)[:3], None]:
            assert (await call(program.port, request_head(tag=tag))).status == 200
        minted = dict(emulator.world.tokens)

        program.process.send_signal(signal.SIGTERM)
        code = await program.end()

    assert len(minted) == 4
    assert not emulator.world.tokens
    assert {emulator.world.token_book.end_reason(text) for text in minted} == {"revoked"}
    assert code == 0
    assert revocation(program) == (4, 0, 0)
    assert not any(text in str(program.lines) for text in minted)


async def test_an_api_that_hangs_does_not_keep_the_program_beyond_its_drain(
    emulator: Emulator, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()
    more = {"ICR_PROXY_TOKENS__REVOKE_ON_EXIT": "true", "ICR_PROXY_SHUTDOWN__MAX_DRAIN": "500ms"}
    async with program_before(emulator, tmp_path, **more) as program:
        await call(program.port, tagged(emulator, "/projects"))
        emulator.world.faults.app.extend([Fault(kind="hang")] * 10)
        began = loop.time()

        program.process.send_signal(signal.SIGTERM)
        code = await program.end()

    assert code == 0
    assert loop.time() - began < 10
    assert revocation(program) == (0, 0, 1)


async def test_a_second_sigterm_waits_for_no_revocation(emulator: Emulator, tmp_path: Path) -> None:
    more = {"ICR_PROXY_TOKENS__REVOKE_ON_EXIT": "true"}
    async with program_before(emulator, tmp_path, **more) as program:
        await call(program.port, tagged(emulator, "/projects"))
        emulator.world.faults.app.extend([Fault(kind="hang")] * 10)
        program.process.send_signal(signal.SIGTERM)
        while not any(seen.method == "DELETE" for seen in emulator.world.requests):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

        program.process.send_signal(signal.SIGTERM)
        code = await program.end()

    assert code == 143
    assert not any(line["event"] == "tokens.revoked" for line in program.lines)


async def test_sighup_takes_over_what_can_change_while_running(
    emulator: Emulator, tmp_path: Path
) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text("policy: {read_only: false}\n")
    write = request_head(
        "POST",
        "/_emulator/echo/x",
        tag=next(iter(emulator.world.installations)),
        extra="Content-Length: 0\r\n",
    )
    async with program_before(emulator, tmp_path, "--config", str(file)) as program:
        before = await call(program.port, write)
        file.write_text("policy: {read_only: true}\n")
        program.process.send_signal(signal.SIGHUP)
        await program.until("config.reloaded")
        after = await call(program.port, write)
        file.write_text("policy: {read_onyl: false}\n")
        program.process.send_signal(signal.SIGHUP)
        rejected = await program.until("config.rejected")
        still = await call(program.port, write)

    assert before.status == 200
    assert after.problem["code"] == still.problem["code"] == "policy-denied"
    assert "policy.read_only" in rejected["problems"][0]


async def test_a_changed_file_is_noticed_without_a_signal(
    emulator: Emulator, tmp_path: Path
) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text("logs: {level: info}\n")
    async with program_before(emulator, tmp_path, "--config", str(file)) as program:
        file.write_text("listeners: [{bind: '127.0.0.1:1'}]\nlogs: {level: debug}\n")

        reloaded = await program.until("config.reloaded")

    # The environment wins over the file, so the listener did not change.
    assert reloaded["restart_needed_for"] == []


async def test_a_changed_key_file_is_noticed_before_a_token_is_needed(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Also where there is no configuration file to watch; without requests nothing is minted."""
    async with program_before(emulator, tmp_path) as program:
        (tmp_path / "app.pem").write_text("rubbish")
        rejected = await program.until("key.rejected")
        (tmp_path / "app.pem").write_text(another_pem())
        loaded = await program.until("key.loaded")

    assert "app.pem" in rejected["detail"]
    assert loaded["fingerprint"] == parse_signing_key(another_pem(), source="test").fingerprint


async def test_wait_and_health_tell_by_their_exit_code(emulator: Emulator, tmp_path: Path) -> None:
    env = environment(emulator, tmp_path)
    async with program_before(emulator, tmp_path) as program:
        ready = await run_to_end(["wait", "--admin", program.admin, "--timeout", "5"], env)
        healthy = await run_to_end(["health", "--admin", program.admin], env)
        program.process.kill()
        await program.process.wait()
        gone = await run_to_end(["health", "--ready", "--admin", program.admin], env)
        late = await run_to_end(["wait", "--admin", program.admin, "--timeout", "0.2"], env)

    assert ready[0] == healthy[0] == 0
    assert gone[0] == late[0] == 1
    assert "refused" in gone[2].lower()
    assert "not ready after 0.2 s" in late[2]


async def test_a_taken_port_is_told_in_one_line(emulator: Emulator, tmp_path: Path) -> None:
    async with program_before(emulator, tmp_path) as program:
        taken = program.url.removeprefix("http://")
        env = environment(emulator, tmp_path)

        code, out, err = await run_to_end(["run", "--listen", taken], env)

    assert code == 1
    assert f"cannot listen on {taken}" in err
    assert "Traceback" not in out + err
