"""Lines on their way to real pipes, files and terminals that stall, fill up or go away."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from icr_proxy.config.models import LogsConfig
from icr_proxy.observability.log import LineBuffer, Threshold, build_log
from icr_proxy.observability.log_writer import LineStream, LogWriter, plain_notice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIPE_BYTES = 4096  # the least that Linux lets a pipe hold
PATIENCE = 5.0


@contextmanager
def pipe(*, nonblocking: bool = False) -> Iterator[tuple[int, int]]:
    """Open a small pipe."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(writer, not nonblocking)
    try:
        yield reader, writer
    finally:
        # The writing end stays open: a thread that was stuck may go on now, and must not write to
        # whatever gets its number next.
        with suppress(OSError):  # a test closed it
            os.close(reader)


class Reading:
    """Reads a pipe to its end in a thread of its own."""

    def __init__(self, reader: int) -> None:
        self._reader = reader
        self._data = b""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while piece := os.read(self._reader, 1000):
            self._data += piece

    def all(self) -> list[bytes]:
        """Give the lines, after the last writer has closed."""
        self._thread.join(PATIENCE)
        return self._data.splitlines()


def line(number: int, size: int = 100) -> bytes:
    return b"%08d %s\n" % (number, b"x" * (size - 10))


def until(condition: object) -> None:
    """Wait for a thread, which tells nobody; give up after some seconds."""
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.005)
    assert condition()  # type: ignore[operator]


def dropped_in(lines: list[bytes]) -> int:
    return sum(int(each.split()[1]) for each in lines if each.startswith(b"icr-proxy:"))


# -- a reader that stalls -------------------------------------------------------------------------


@pytest.mark.parametrize("nonblocking", [False, True], ids=["blocking", "O_NONBLOCK"])
def test_writing_to_a_pipe_that_nobody_reads_returns_at_once(*, nonblocking: bool) -> None:
    with pipe(nonblocking=nonblocking) as (reader, writer):
        lines = LogWriter(writer, most=10_000)

        began = time.monotonic()
        for number in range(5_000):
            lines.write(line(number))
        took = time.monotonic() - began

        assert took < PATIENCE
        assert lines.drops.lines > 4_000
        os.set_blocking(reader, False)


@pytest.mark.parametrize("nonblocking", [False, True], ids=["blocking", "O_NONBLOCK"])
def test_each_line_is_written_whole_and_in_order_or_counted(*, nonblocking: bool) -> None:
    """Also with O_NONBLOCK, which a parent may have set: EAGAIN comes in the middle of a line."""
    with pipe(nonblocking=nonblocking) as (reader, writer):
        lines = LogWriter(writer, most=10_000)
        for number in range(1_000):
            lines.write(line(number, 100 + number % 700))

        reading = Reading(reader)
        lines.close(seconds=PATIENCE)
        os.close(writer)
        found = reading.all()

    whole = [each for each in found if not each.startswith(b"icr-proxy:")]
    numbers = [int(each[:8]) for each in whole]
    assert numbers == sorted(set(numbers))
    assert [len(each) + 1 for each in whole] == [100 + number % 700 for number in numbers]
    assert len(whole) + dropped_in(found) == 1_000
    assert lines.drops.lines == dropped_in(found) > 0


def test_the_number_of_dropped_lines_stands_where_they_are_missing() -> None:
    with pipe() as (reader, writer):
        lines = LogWriter(writer, most=1_000)
        lines.write(line(0, 20_000))  # more than the pipe holds, so the thread is stuck in it
        until(lambda: not lines._waiting)
        for number in range(1, 21):
            lines.write(line(number))
        reading = Reading(reader)
        until(lambda: not lines._waiting)

        lines.write(line(99))
        lines.close(seconds=PATIENCE)
        os.close(writer)
        found = reading.all()

    kept = [int(each[:8]) for each in found if each[:1] == b"0"]
    notice = next(at for at, each in enumerate(found) if each.startswith(b"icr-proxy:"))
    assert kept == [*range(11), 99]
    assert found[notice] + b"\n" == plain_notice(10)
    assert found[notice + 1].startswith(b"00000099")


def test_lines_that_fit_are_told_nothing_about() -> None:
    with pipe() as (reader, writer):
        lines = LogWriter(writer)
        reading = Reading(reader)

        for number in range(1_000):
            lines.write(line(number))
        lines.close(seconds=PATIENCE)
        os.close(writer)

        assert reading.all() == [line(number).rstrip() for number in range(1_000)]
        assert lines.drops.lines == 0


@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_a_very_long_line_is_written_whole(size: int) -> None:
    with pipe() as (reader, writer):
        lines = LogWriter(writer)
        reading = Reading(reader)

        lines.write(line(1, size))
        lines.close(seconds=PATIENCE)
        os.close(writer)

        assert reading.all() == [line(1, size).rstrip()]


def test_the_end_waits_no_longer_than_it_is_told() -> None:
    with pipe() as (_, writer):
        lines = LogWriter(writer)
        lines.write(line(1, 100_000))

        began = time.monotonic()
        lines.close(seconds=0.2)

        assert 0.1 < time.monotonic() - began < 2


def test_what_is_written_after_the_end_is_counted() -> None:
    with pipe() as (_, writer):
        lines = LogWriter(writer)
        lines.close(seconds=PATIENCE)

        lines.write(line(1))

        assert lines.drops.lines == 1


def test_a_terminal_with_flow_control_stopped_holds_nobody() -> None:
    person, ours = pty.openpty()
    try:
        os.write(person, b"\x13")  # Ctrl-S
        lines = LogWriter(ours, most=1_000)
        began = time.monotonic()
        for number in range(500):
            lines.write(line(number))
        assert time.monotonic() - began < PATIENCE
        assert lines.isatty()
        assert lines.drops.lines > 0
        os.write(person, b"\x11")  # Ctrl-Q
        assert os.read(person, 8) == b"00000000"
    finally:
        os.close(person)  # our end stays open, as that of a pipe does


# -- errors ---------------------------------------------------------------------------------------


def test_a_reader_that_has_gone_loses_lines_and_nothing_else() -> None:
    with pipe() as (reader, writer):
        lines = LogWriter(writer)
        os.close(reader)

        lines.write(line(1))
        until(lambda: lines.drops.lines == 1)
        lines.write(line(2) + line(3))
        until(lambda: lines.drops.lines == 3)
        before = time.process_time()
        time.sleep(0.2)  # what is measured is that nothing happens in it

        assert time.process_time() - before < 0.1
        lines.close(seconds=PATIENCE)


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    number = os.open("/dev/full", os.O_WRONLY)
    try:
        lines = LogWriter(number)
        lines.write(line(1) + line(2))
        lines.close(seconds=PATIENCE)
        assert lines.drops.lines == 2
    finally:
        os.close(number)


FILLING = """
import resource, signal, sys, time
from icr_proxy.observability.log_writer import LogWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))
lines = LogWriter(1)
for number in range(10):
    lines.write(b"%08d %s\\n" % (number, b"x" * 90))
end = time.monotonic() + 5
while lines.drops.lines < 7 and time.monotonic() < end:
    time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
lines.write(b"after\\n")
lines.close(seconds=5)
"""


def test_a_line_cut_by_a_full_disk_is_finished_when_there_is_room(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as stream:
        subprocess.run([sys.executable, "-c", FILLING], stdout=stream, check=True)

    found = file.read_bytes().splitlines()
    assert [each[:8] for each in found[:3]] == [b"00000000", b"00000001", b"00000002"]
    assert {len(each) for each in found[:3]} == {99}
    assert found[3] + b"\n" == plain_notice(7)
    assert found[4:] == [b"after"]


# -- the log --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "shown"), [("json", b'"lines":'), ("console", b"lines=")])
def test_dropped_lines_are_told_in_the_format_of_the_log(form: str, shown: bytes) -> None:
    with pipe() as (reader, writer):
        lines = LineBuffer(LogWriter(writer, most=2_000))
        config = LogsConfig(format=form)  # type: ignore[arg-type]
        log = build_log(config, lines=lines, threshold=Threshold("info"), now=lambda: 0.0)
        assert lines.writer is not None
        for _ in range(500):
            log.info("something.happened", text="x" * 100)
        reading = Reading(reader)
        lines.writer.close(seconds=PATIENCE)
        os.close(writer)

        told = [each for each in reading.all() if b"log.dropped" in each]

    assert told
    assert all(shown in each and b"warning" in each for each in told)
    numbers = [int(each.partition(shown)[2].rstrip(b"}")) for each in told]
    assert sum(numbers) == lines.dropped > 0


# -- text -----------------------------------------------------------------------------------------


def test_text_without_an_end_waits_for_it() -> None:
    with pipe() as (reader, writer):
        lines = LogWriter(writer)
        stream = LineStream(lines)
        text = io.TextIOWrapper(io.BufferedWriter(stream), line_buffering=True)
        text.write("half ")
        text.flush()
        lines.write(b"another\n")
        text.write("and half\nrest")
        text.flush()
        stream.end_line()
        lines.close(seconds=PATIENCE)
        os.close(writer)

        assert Reading(reader).all() == [b"another", b"half and half", b"rest"]


PRINTING = """
import asyncio, gc, os, sys, threading, warnings
from icr_proxy.observability.log_writer import standard_streams_in_threads

class Bad:
    def __del__(self):
        raise ValueError("in a finalizer")

def fail():
    raise ValueError("in a thread")

async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    for number in range(3000):
        warnings.warn(f"{number} " + "x" * 100)
        print(number, "x" * 100)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    Bad()
    gc.collect()
    await asyncio.sleep(0)

warnings.simplefilter("always")
with standard_streams_in_threads() as out:
    asyncio.run(main())
os._exit(7)
"""


@pytest.mark.parametrize("stalled", ["stdout", "stderr"])
def test_whatever_python_prints_holds_nobody_and_no_other_stream(stalled: str) -> None:
    reader, writer = os.pipe()
    other = "stderr" if stalled == "stdout" else "stdout"
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTING],
        stdout=writer if stalled == "stdout" else subprocess.PIPE,
        stderr=writer if stalled == "stderr" else subprocess.PIPE,
    )
    os.close(writer)
    stream = process.stderr if other == "stderr" else process.stdout
    assert stream is not None
    with stream:
        found = stream.read()
    code = process.wait(10)
    os.close(reader)

    assert code == 7
    assert time.monotonic() - began < 8
    assert b"2999 xxx" in found or b"lines were dropped" in found
    expected = [b"in a finalizer", b"in a thread", b"ZeroDivisionError"]
    assert other == "stdout" or all(each in found for each in expected)


def test_standard_streams_are_given_back() -> None:
    code = (
        "import sys\n"
        "from icr_proxy.observability.log_writer import standard_streams_in_threads as f\n"
        "before = sys.stdout, sys.stderr\n"
        "with f(): print('inside', end='')\n"
        "print(before == (sys.stdout, sys.stderr))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert done.stdout == b"inside\nTrue\n"
