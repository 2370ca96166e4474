"""The program while nobody reads what it writes: it serves, answers probes, reloads and ends."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import sys
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from icr_proxy.admin.client import ask
from tests.support.app_fixture import call, read_answer, request_head
from tests.support.program import environment, run_to_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from icr_proxy.emulator.server import Emulator

PIPE_BYTES = 4096
LONG = "x" * 500  # what is logged of a path at most, so that the queue is full before long
REFUSALS = 1_500  # of about 950 bytes a line
GUARD_SECONDS = 20
CONTROL_S, CONTROL_Q = b"\x13", b"\x11"


@dataclass
class Output:
    """A pipe or a terminal that nobody reads, until somebody does."""

    writer: int
    reader: int

    def read(self) -> bytes:
        """Read all that was written, after every writer has gone."""
        data = b""
        with suppress(OSError):  # EIO is how a terminal ends
            while piece := os.read(self.reader, 1 << 16):
                data += piece
        return data


@contextmanager
def stuck_pipe(*, blocking: bool = True) -> Iterator[Output]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(writer, blocking)
    yield Output(writer, reader)
    with suppress(OSError):
        os.close(reader)


@contextmanager
def stopped_terminal() -> Iterator[Output]:
    person, ours = pty.openpty()
    os.write(person, CONTROL_S)
    yield Output(ours, person)
    os.close(person)


@contextmanager
def gone_reader() -> Iterator[Output]:
    reader, writer = os.pipe()
    os.close(reader)
    yield Output(writer, -1)


@contextmanager
def full_disk() -> Iterator[Output]:
    yield Output(os.open("/dev/full", os.O_WRONLY), -1)


OUTPUTS = {
    "stuck pipe": stuck_pipe,
    "stopped terminal": stopped_terminal,
    "reader that has gone": gone_reader,
    "full disk": full_disk,
}


@dataclass
class Silent:
    """A running program whose log cannot be read."""

    process: asyncio.subprocess.Process
    admin: str
    port: int

    async def end(self) -> tuple[int, float]:
        """Send SIGTERM; give the exit code and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(GUARD_SECONDS):
            await self.process.wait()
        assert self.process.returncode is not None
        return self.process.returncode, time.monotonic() - began


@asynccontextmanager
async def silent_program(
    emulator: Emulator, folder: Path, *, stdout: int, stderr: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[Silent]:
    """Run the program with these streams; its ports are asked of the kernel."""
    admin = f"unix:{folder / 'admin.sock'}"
    env = environment(emulator, folder, ICR_PROXY_ADMIN__BIND=admin)
    env |= {"ICR_PROXY_LISTENERS__0__BIND": f"unix:{folder / 'data.sock'}"}
    env |= {"ICR_PROXY_LISTENERS__1__BIND": "127.0.0.1:0", "ICR_PROXY_LOGS__FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "icr_proxy", "run", env=env, stdout=stdout, stderr=stderr
    )
    try:
        assert (await run_to_end(["wait", "--admin", admin, "--timeout", "15"], env))[0] == 0
        yield Silent(process, admin, port_of(process.pid))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def port_of(pid: int) -> int:
    """Find the port on which a process listens."""
    inodes = {
        link.readlink().name.removeprefix("socket:[").rstrip("]")
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if str(link.readlink()).startswith("socket:[")
    }
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        columns = line.split()
        if columns[3] == "0A" and columns[9] in inodes:
            return int(columns[1].rpartition(":")[2], 16)
    raise AssertionError(f"{pid} listens nowhere")


async def served(program: Silent, emulator: Emulator, count: int) -> int:
    """Send requests; give how many the API answered."""
    request = request_head(target="/projects", tag=next(iter(emulator.world.installations)))
    answers = [await asyncio.wait_for(call(program.port, request), 5) for _ in range(count)]
    return sum(answer.status == 200 for answer in answers)


async def fill_queue(program: Silent) -> int:
    """Have lines logged, more than may wait; give how many."""
    request = request_head(target=f"/{LONG}", tag=None)
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    for _ in range(REFUSALS):
        writer.write(request)
        assert (await asyncio.wait_for(read_answer(reader), 5)).status == 400
    writer.close()
    return REFUSALS


@pytest.mark.parametrize("kind", OUTPUTS)
async def test_requests_probes_reloads_and_the_end_wait_for_no_reader(
    kind: str, emulator: Emulator, tmp_path: Path
) -> None:
    with OUTPUTS[kind]() as output:
        async with silent_program(emulator, tmp_path, stdout=output.writer) as program:
            os.close(output.writer)

            await fill_queue(program)
            answered = await served(program, emulator, 10)
            program.process.send_signal(signal.SIGHUP)
            alive = await asyncio.to_thread(ask, program.admin, "/healthz")
            ready = await asyncio.to_thread(ask, program.admin, "/readyz")
            dropped = await metric(program, "icr_proxy_log_lines_dropped_total")
            code, took = await program.end()

    assert answered == 10
    assert (alive, ready) == (None, None)
    assert dropped > 0
    assert code == 0
    assert took < 4


async def metric(program: Silent, name: str) -> float:
    reader, writer = await asyncio.open_unix_connection(program.admin.removeprefix("unix:"))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "O_NONBLOCK"])
async def test_when_somebody_reads_again_lines_are_whole_and_the_missing_are_told(
    *, blocking: bool, emulator: Emulator, tmp_path: Path
) -> None:
    with stuck_pipe(blocking=blocking) as output:
        async with silent_program(emulator, tmp_path, stdout=output.writer) as program:
            os.close(output.writer)
            count = await fill_queue(program)
            reading = asyncio.ensure_future(asyncio.to_thread(output.read))
            count += await served(program, emulator, 5)
            code, _ = await program.end()
            lines = [json.loads(line) for line in (await reading).splitlines()]

    done = [line for line in lines if line["event"] == "request.done"]
    lost = [line["lines"] for line in lines if line["event"] == "log.dropped"]
    others = len(lines) - len(done) - len(lost)
    assert code == 0
    assert lost
    assert count <= len(done) + sum(lost) <= count + 5  # a few of those dropped were others
    assert others < 20
    assert lines[-1]["event"] == "proxy.stopped"


async def test_standard_error_that_nobody_reads_holds_nothing(
    emulator: Emulator, tmp_path: Path
) -> None:
    with stuck_pipe() as output:
        async with silent_program(
            emulator, tmp_path, stdout=asyncio.subprocess.DEVNULL, stderr=output.writer
        ) as program:
            os.close(output.writer)
            assert await served(program, emulator, 20) == 20
            code, took = await program.end()

    assert (code, took < 3) == (0, True)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("words", "code"),
    [(["emulator", "--port", "0", "--installations", "500"], 0), (["run"], 2)],
    ids=["emulator", "run without configuration"],
)
async def test_other_ways_to_serve_and_to_fail_end_as_well(
    words: list[str], code: int, stream: str
) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("ICR_")}
    with stuck_pipe() as output:
        os.set_blocking(output.writer, False)
        with suppress(BlockingIOError):
            while os.write(output.writer, b"x" * 100):
                pass
        os.set_blocking(output.writer, True)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "icr_proxy",
            *words,
            env=env,
            stdout=output.writer if stream == "stdout" else asyncio.subprocess.DEVNULL,
            stderr=output.writer if stream == "stderr" else asyncio.subprocess.DEVNULL,
        )
        os.close(output.writer)
        if code == 0:
            await asyncio.sleep(2)  # it has started by then, or else ends at once
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(GUARD_SECONDS):
            assert await process.wait() == code


async def test_a_command_waits_for_room_in_a_pipe_that_does_not_block() -> None:
    """Whoever shares a pipe may set O_NONBLOCK, as Node does; Python would cut the output."""
    with stuck_pipe(blocking=False) as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "icr_proxy", "check", "--schema", stdout=output.writer
        )
        os.close(output.writer)
        await asyncio.sleep(1)  # for it to meet the full pipe
        data = await asyncio.to_thread(output.read)
        code = await process.wait()

    assert code == 0
    assert json.loads(data)["properties"]["listeners"]
