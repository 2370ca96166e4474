"""Processes on their cores, and what the kernel says they cost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CONTENDER_CORE, LOAD_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
START_SECONDS = 20.0
POLL_SECONDS = 0.002  # what a time to the first answer may be too long by, with a try's own time
STOP_SECONDS = 20.0


def free_port() -> int:
    """Ask the system for a port; somebody else may take it before we do, but nobody is here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def folder_in(parent: Path, name: str) -> Path:
    """Make a folder of its own: ports come again. nginx's worker, somebody else, may look."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    folder.chmod(0o755)
    return folder


@dataclass(slots=True)
class Process:
    """A program that runs until we are done with it."""

    name: str
    popen: subprocess.Popen[bytes] = field(repr=False)
    began: float
    """When it was started, by the monotonic clock."""

    @property
    def family(self) -> list[int]:
        """The process and its children: nginx works in a child."""
        pids = [self.popen.pid]
        for pid in pids:
            with open(f"/proc/{pid}/task/{pid}/children") as children:  # noqa: PTH123  # not a file
                pids += [int(child) for child in children.read().split()]
        return pids

    def cpu(self) -> float:
        """Seconds of CPU used so far, user and system."""
        ticks = 0
        for pid in self.family:
            with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123
                values = stat.read().rpartition(b")")[2].split()
            ticks += int(values[11]) + int(values[12])
        return ticks / TICKS

    def memory(self) -> int:
        """KiB resident now."""
        total = 0
        for pid in self.family:
            with open(f"/proc/{pid}/statm", "rb") as statm:  # noqa: PTH123
                total += int(statm.read().split()[1]) * PAGE_KIB
        return total

    def peak(self) -> int:
        """KiB that were resident at most."""
        return sum(self._status(pid, "VmHWM") for pid in self.family)

    @staticmethod
    def _status(pid: int, name: str) -> int:
        with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
            line = next(line for line in status if line.startswith(name))
        return int(line.split()[1])

    def stop(self) -> None:
        """End it."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


@contextmanager
def started(
    name: str,
    command: Sequence[str | Path],
    *,
    core: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Process]:
    """Run a program on one core; what it says goes into a file."""
    with log.open("ab") as out:
        began = time.monotonic()
        popen = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    process = Process(name, popen, began)
    try:
        yield process
    finally:
        process.stop()


def until_answering(process: Process, url: str, *, tagged: bool = True) -> float:
    """Wait for the first answer; say how many seconds after the start of the program it came."""
    headers = {"X-ICR-Installation-Id": "bench"} if tagged else {}
    while time.monotonic() - process.began < START_SECONDS:
        if process.popen.poll() is not None:
            raise RuntimeError(f"{process.name} ended with {process.popen.returncode}")
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5):
                return time.monotonic() - process.began
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_SECONDS)
    raise RuntimeError(f"{process.name} does not answer")


def on_load_core(command: Sequence[str | Path], *, timeout: float) -> bytes:
    """Run a load to its end and give what it printed."""
    done = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), *map(str, command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.decode()[-500:]}")
    return done.stdout
