"""Writes lines from a thread of its own, so that no reader can stall the event loop.

A pipe whose reader is stuck, a terminal with flow control stopped (Ctrl-S) or a slow disk blocks
`write` for as long as it likes. The event loop therefore only queues lines. The queue is bounded:
lines that do not fit are dropped and counted, and the output says how many were dropped as soon as
writing works again. Lines are always written whole.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

QUEUE_BYTES = 1 << 20  # about 2,500 lines of requests; as much again may be in the thread's hands
FLUSH_SECONDS = 1.0  # how long the end of the process may take for lines that wait
WRITE_BYTES = 1 << 16  # what a pipe holds by default on Linux


class DropCounts:
    """Counts dropped lines of all writers of a process."""

    def __init__(self) -> None:
        self.lines = 0


def plain_notice(lines: int) -> bytes:
    """Say how many lines were dropped, where no other format is known."""
    return b"icr-proxy: %d lines were dropped here, because nobody read them\n" % lines


class LogWriter:
    """Bounded queue of lines, and the thread that writes them to one descriptor."""

    def __init__(
        self, descriptor: int, *, most: int = QUEUE_BYTES, drops: DropCounts | None = None
    ) -> None:
        """Write to `descriptor`, which stays open; queue at most about `most` bytes."""
        self.descriptor = descriptor
        self.drops = drops or DropCounts()
        self.notice: Callable[[int], bytes] = plain_notice
        """Makes the line that says how many lines were dropped; called in the thread."""
        self._most = most
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0
        self._skipped = 0  # lines dropped since the thread last took what waits
        self._closing = False
        self._thread: threading.Thread | None = None
        self._rest = b""  # of a line that an error cut; only the thread uses these two
        self._lost = 0

    def isatty(self) -> bool:
        """Whether a person reads the lines."""
        return os.isatty(self.descriptor)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def write(self, lines: bytes) -> None:
        """Queue whole lines, each with its end. This never waits for a reader."""
        with self._changed:
            if self._thread is None:
                self._start()
            # After the first drop, all are dropped until the thread takes what waits. So the notice
            # stands exactly where lines are missing.
            full = self._waiting and self._size + len(lines) > self._most
            if self._skipped or full or self._closing:
                self._skipped += self._count(lines)
                return
            self._waiting.append(lines)
            self._size += len(lines)
            if len(self._waiting) == 1:
                self._changed.notify()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        with suppress(RuntimeError):  # no more threads for now (a limit of the container's)
            thread.start()
            self._thread = thread

    def close(self, *, seconds: float = FLUSH_SECONDS) -> None:
        """Take no more lines, and wait this long at most until those that wait are written."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _count(self, lines: bytes, *, since: int = 0) -> int:
        number = lines.count(b"\n", since)
        self.drops.lines += number
        return number

    # -- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._closing):
                    self._changed.wait()
                if not self._waiting:
                    return
                waiting, self._waiting, self._size = self._waiting, [], 0
                skipped, self._skipped = self._skipped, 0
            self._write(b"".join(waiting))
            self._lost += skipped
            self._tell_lost()

    def _write(self, lines: bytes) -> None:
        """Write lines; those that cannot be written are lost and counted."""
        if self._lost:
            self._tell_lost()
        written = self._put(lines)
        self._lost += self._count(lines, since=written)

    def _tell_lost(self) -> None:
        """Say how many lines are missing at this place, as soon as that works."""
        if self._lost:
            notice = self.notice(self._lost)
            if self._put(notice) == len(notice):
                self._lost = 0

    def _put(self, lines: bytes) -> int:
        """Write lines after the rest of a cut one; give how far, counted in whole lines."""
        data, before = self._rest + lines, len(self._rest)
        done = self._write_bytes(data)
        is_cut = done > 0 and data[done - 1 : done] != b"\n"
        if done == 0 and self._rest:
            return 0
        end = data.find(b"\n", done) + 1 if is_cut else done
        self._rest = data[done:end]
        return max(end - before, 0)

    def _write_bytes(self, data: bytes) -> int:
        """Write as much as possible; give how much. Only an error ends it early."""
        done, view = 0, memoryview(data)
        while done < len(data):
            try:
                done += os.write(self.descriptor, view[done : done + WRITE_BYTES])
            except BlockingIOError:  # O_NONBLOCK, set by whoever else has this pipe or terminal
                ready = select.poll()
                ready.register(self.descriptor, select.POLLOUT)
                ready.poll()
            except OSError:  # nobody reads any more (EPIPE), a full disk, a terminal that has gone
                break
        return done


class LineStream(io.RawIOBase):
    """Binary stream over a writer; holds back a line until it is whole."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer
        self._rest = b""

    def writable(self) -> bool:
        """Say yes."""
        return True

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self._writer.isatty()

    def fileno(self) -> int:
        """Give the descriptor, for those who ask about it."""
        return self._writer.descriptor

    def write(self, data: object, /) -> int:
        """Queue all lines that are whole now."""
        piece = bytes(data)  # type: ignore[call-overload]  # any buffer
        lines, end, self._rest = (self._rest + piece).rpartition(b"\n")
        if end:
            self._writer.write(lines + end)
        return len(piece)

    def end_line(self) -> None:
        """Queue what is left of a line without an end."""
        if self._rest:
            lines, self._rest = self._rest + b"\n", b""
            self._writer.write(lines)


@contextmanager
def standard_streams_in_threads() -> Iterator[LogWriter]:
    """Let everything printed go through writers, one for each stream; give the one of stdout.

    This covers what Python itself prints as well: warnings, and errors in tasks, threads and
    finalizers. Each stream has its own thread, so that one that is stuck does not hold the other.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        stream.flush()
    out = LogWriter(sys.stdout.fileno())
    err = LogWriter(sys.stderr.fileno(), drops=out.drops)
    lines = LineStream(out), LineStream(err)
    sys.stdout, sys.stderr = (
        _text(stream, like=old) for stream, old in zip(lines, before, strict=True)
    )
    try:
        yield out
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
        deadline = time.monotonic() + FLUSH_SECONDS
        for stream, writer in zip(lines, (out, err), strict=True):
            stream.end_line()
            writer.close(seconds=max(deadline - time.monotonic(), 0.0))


def _text(stream: LineStream, *, like: TextIO) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(stream), encoding=like.encoding, errors=like.errors, line_buffering=True
    )
