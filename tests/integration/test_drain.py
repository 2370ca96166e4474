"""How the program lets go of its callers, whoever tells it to stop."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import pytest

from icr_proxy.admin.client import ask
from tests.integration.test_life import SLOW, in_flight, tagged
from tests.support.app_fixture import RawAnswer, call, read_answer, request_head
from tests.support.program import GUARD_SECONDS, environment, program_before, run_to_end

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator
    from tests.support.program import Program

BROKEN = (asyncio.IncompleteReadError, ConnectionError)
LONG = {"ICR_PROXY_SHUTDOWN__MIN_DRAIN": "1s"}
ECHO = "/_emulator/echo/x"


async def post(program: Program, path: str, *, extra: str = "") -> RawAnswer:
    """Ask the admin port."""
    port = int(program.admin.rpartition(":")[2])
    head = f"POST {path} HTTP/1.1\r\nHost: {program.admin}\r\n{extra}Content-Length: 0\r\n\r\n"
    return await call(port, head.encode())


async def terminate(program: Program) -> None:
    program.process.send_signal(signal.SIGTERM)
    await program.until("proxy.draining")


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends without another byte."""
    async with asyncio.timeout(GUARD_SECONDS):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


# -- told to quit ---------------------------------------------------------------------------------


async def test_quit_finishes_what_is_in_flight_and_exits_with_0(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with (
        program_before(emulator, tmp_path) as program,
        in_flight(program, emulator, SLOW) as reader,
    ):
        first = await post(program, "/quit")
        await program.until("proxy.draining")
        second = await post(program, "/quit")
        answer = await read_answer(reader)
        code = await program.end()

    assert (first.status, json.loads(first.body)) == (200, {"quitting": True, "changed": True})
    assert (second.status, json.loads(second.body)) == (200, {"quitting": True, "changed": False})
    assert (answer.status, answer.values(b"Connection")) == (200, [b"close"])
    assert code == 0
    assert [line["changed"] for line in program.lines if line["event"] == "admin.quit"] == [
        True,
        False,
    ]


async def test_an_idle_proxy_answers_quit_before_it_goes(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with program_before(emulator, tmp_path) as program:
        answer = await post(program, "/quit")
        code = await program.end()

    assert (answer.status, code) == (200, 0)


async def test_the_command_quit_sends_the_admin_token(emulator: Emulator, tmp_path: Path) -> None:
    file = tmp_path / "token"
    bare = {k: v for k, v in environment(emulator, tmp_path).items() if "ICR_PROXY_" not in k}
    async with program_before(emulator, tmp_path, ICR_PROXY_ADMIN__TOKEN_FILE=str(file)) as program:
        there = ["quit", "--admin", program.admin]

        without = await run_to_end(there, bare)
        wrong = await run_to_end([*there, "--token-file", str(tmp_path / "none")], bare)
        given = await run_to_end([*there, "--token-file", str(file)], bare)

        assert await program.end() == 0
    assert (without[0], "admin token is needed" in without[2]) == (1, True)
    assert (wrong[0], "none cannot be read" in wrong[2]) == (1, True)
    assert given[:2] == (0, "quitting\n")


async def test_a_signal_after_quit_is_the_first_one(emulator: Emulator, tmp_path: Path) -> None:
    """A job quits its sidecar, and then the pod is deleted: what is in flight still finishes."""
    async with (
        program_before(emulator, tmp_path) as program,
        in_flight(program, emulator, SLOW) as reader,
    ):
        await post(program, "/quit")
        program.process.send_signal(signal.SIGTERM)
        answer = await read_answer(reader)
        code = await program.end()

    assert (answer.status, code) == (200, 0)


async def test_the_command_quit_tells_by_its_exit_code(emulator: Emulator, tmp_path: Path) -> None:
    env = environment(emulator, tmp_path)
    async with program_before(emulator, tmp_path) as program:
        told = await run_to_end(["quit", "--admin", program.admin], env)
        code = await program.end()
        gone = await run_to_end(["quit", "--admin", program.admin], env)

    assert (told[0], told[1], code) == (0, "quitting\n", 0)
    assert gone[0] == 1
    assert "refused" in gone[2].lower()


@pytest.mark.parametrize(
    "extra",
    ["Origin: https://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n", "Origin: null\r\n"],
)
async def test_a_page_of_the_web_ends_nothing(
    emulator: Emulator, tmp_path: Path, extra: str
) -> None:
    async with program_before(emulator, tmp_path) as program:
        refused = await post(program, "/quit", extra=extra)
        ready = await asyncio.to_thread(ask, program.admin, "/readyz")

    assert refused.status == 403
    assert ready is None


# -- callers' connections -------------------------------------------------------------------------


async def test_during_min_drain_a_connection_ends_with_its_next_answer(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with program_before(emulator, tmp_path, **LONG) as program:
        reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
        writer.write(tagged(emulator, ECHO))
        before = await read_answer(reader)
        await terminate(program)
        writer.write(tagged(emulator, ECHO))
        during = await read_answer(reader)
        end = await ended(reader)
        writer.close()
        code = await program.end()

    assert (before.status, before.values(b"Connection")) == (200, [])
    assert (during.status, during.values(b"Connection")) == (200, [b"close"])
    assert end
    assert code == 0


async def test_idle_connections_end_with_min_drain_and_wait_for_nobody(
    emulator: Emulator, tmp_path: Path
) -> None:
    more = {"ICR_PROXY_SHUTDOWN__MIN_DRAIN": "300ms"}
    async with (
        program_before(emulator, tmp_path, **more) as program,
        in_flight(program, emulator, "/_emulator/slow?seconds=2") as slow,
    ):
        used, one = await asyncio.open_connection("127.0.0.1", program.port)
        one.write(tagged(emulator, ECHO))
        await read_answer(used)
        unused, two = await asyncio.open_connection("127.0.0.1", program.port)
        await terminate(program)

        ends = await asyncio.gather(ended(used), ended(unused))
        still_under_way = program.process.returncode is None and not slow.at_eof()
        answer = await read_answer(slow)
        one.close()
        two.close()
        code = await program.end()

    assert all(ends)
    assert still_under_way
    assert (answer.status, code) == (200, 0)


async def test_a_head_that_is_whole_within_min_drain_is_served(
    emulator: Emulator, tmp_path: Path
) -> None:
    head = tagged(emulator, ECHO)
    async with program_before(emulator, tmp_path, **LONG) as program:
        reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
        writer.write(head[:20])
        await terminate(program)
        writer.write(head[20:])
        answer = await read_answer(reader)
        writer.close()
        code = await program.end()

    assert (answer.status, answer.values(b"Connection")) == (200, [b"close"])
    assert code == 0


@pytest.mark.parametrize("served_before", [0, 1])
async def test_a_head_that_is_not_whole_by_then_is_dropped_and_holds_nothing_up(
    emulator: Emulator, tmp_path: Path, served_before: int
) -> None:
    head = tagged(emulator, ECHO)
    async with program_before(emulator, tmp_path) as program:
        reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
        for _ in range(served_before):
            writer.write(head)
            await read_answer(reader)
        writer.write(head[:20])
        await asyncio.to_thread(ask, program.admin, "/healthz")
        await terminate(program)
        end = await ended(reader)
        writer.close()
        code = await program.end()

    assert end
    assert code == 0
    assert len([seen for seen in emulator.world.requests if seen.target == ECHO]) == served_before


async def until_closed(port: int) -> None:
    """Wait until nobody is let in any more."""
    async with asyncio.timeout(GUARD_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return
            writer.close()


@pytest.mark.parametrize(
    ("framing", "pieces"),
    [
        ("Content-Length: 10", (b"hello", b"world")),
        ("Transfer-Encoding: chunked", (b"5\r\nhello\r\n", b"5\r\nworld\r\n0\r\n\r\n")),
    ],
    ids=["length", "chunked"],
)
async def test_an_upload_under_way_may_be_finished(
    emulator: Emulator, tmp_path: Path, framing: str, pieces: tuple[bytes, bytes]
) -> None:
    tag = next(iter(emulator.world.installations))
    head = request_head("POST", "/_emulator/sink", tag=tag, extra=f"{framing}\r\n")
    async with program_before(emulator, tmp_path) as program:
        reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
        writer.write(head + pieces[0])
        while not any(seen.target == "/_emulator/sink" for seen in emulator.world.requests):  # noqa: ASYNC110  # the emulator tells nobody
            await asyncio.sleep(0.01)
        await terminate(program)
        await until_closed(program.port)
        writer.write(pieces[1])
        answer = await read_answer(reader)
        end = await ended(reader)
        writer.close()
        code = await program.end()

    assert (answer.status, json.loads(answer.body)["length"], code) == (200, 10, 0)
    assert end


async def test_a_stream_that_outlives_max_drain_is_broken_off_and_told(
    emulator: Emulator, tmp_path: Path
) -> None:
    more = {"ICR_PROXY_SHUTDOWN__MAX_DRAIN": "300ms"}
    async with program_before(emulator, tmp_path, **more) as program:
        # More than all buffers on the way hold, to a caller that takes its time.
        reader, writer = await asyncio.open_connection("127.0.0.1", program.port, limit=1024)
        writer.write(tagged(emulator, "/_emulator/bytes/100000000"))
        head = await reader.readuntil(b"\r\n\r\n")
        await terminate(program)
        await asyncio.sleep(1)
        with pytest.raises(BROKEN):
            await reader.readexactly(100_000_000)
        writer.close()
        code = await program.end()

    events = [line["event"] for line in program.lines]
    [done] = [line for line in program.lines if line["event"] == "request.done"]
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert code == 1
    assert (done["code"], done["status"]) == ("draining", 499)
    assert [e for e in events if e in ("proxy.cut_off", "request.done", "proxy.stopped")] == [
        "proxy.cut_off",
        "request.done",
        "proxy.stopped",
    ]


async def test_a_stream_that_ends_in_time_ends_whole(emulator: Emulator, tmp_path: Path) -> None:
    async with program_before(emulator, tmp_path) as program:
        reader, writer = await asyncio.open_connection("127.0.0.1", program.port, limit=1024)
        writer.write(tagged(emulator, "/_emulator/bytes/30000000"))
        await reader.readuntil(b"\r\n\r\n")
        await terminate(program)
        await asyncio.sleep(0.5)
        body = await reader.readexactly(30_000_000)
        writer.close()
        code = await program.end()

    assert len(body) == 30_000_000
    assert code == 0
    assert program.lines[-1]["event"] == "proxy.stopped"
