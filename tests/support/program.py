"""`icr-proxy run` as a process of its own, as users start it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator

GUARD_SECONDS = 20


@dataclass
class Program:
    """A running process and what it has logged so far."""

    process: asyncio.subprocess.Process
    url: str = ""
    admin: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def until(self, event: str) -> dict[str, Any]:
        """Read the log until this event."""
        assert self.process.stdout is not None
        async with asyncio.timeout(GUARD_SECONDS):
            while line := await self.process.stdout.readline():
                self.lines.append(json.loads(line))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
        raise AssertionError(f"ended without {event}: {self.lines}")

    async def end(self) -> int:
        """Wait for the exit code."""
        async with asyncio.timeout(GUARD_SECONDS):
            out, _ = await self.process.communicate()
        self.lines += [json.loads(line) for line in out.splitlines()]
        assert self.process.returncode is not None
        return self.process.returncode


def is_proxy(name: str) -> bool:
    """Tell whether a variable is about egress proxies."""
    return name.lower().endswith("_proxy")


def environment(emulator: Emulator, folder: Path, **more: str) -> dict[str, str]:
    """Give the variables of a proxy in front of an emulator, on free ports."""
    key = folder / "app.pem"
    key.write_text(emulator.private_key_pem)
    key.chmod(0o600)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ICR_") and not is_proxy(k)}
    return clean | {
        "ICR_PROXY_APP__ID": emulator.app_id,
        "ICR_PROXY_APP__PRIVATE_KEY_FILE": str(key),
        "ICR_PROXY_UPSTREAM__BASE_URL": emulator.base_url,
        "ICR_PROXY_LISTENERS__0__BIND": "127.0.0.1:0",
        "ICR_PROXY_ADMIN__BIND": "127.0.0.1:0",
        **more,
    }


# What systemd does between fork and exec: descriptors from 3 on, and for whom they are.
PASS = """
import os, sys
count, *rest = sys.argv[1:]
numbers = [int(number) for number in rest[: int(count)]]
high = [os.dup2(number, 500 + at, inheritable=False) for at, number in enumerate(numbers)]
for at, number in enumerate(high):
    os.dup2(number, 3 + at)
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), count
os.execv(sys.executable, [sys.executable, "-m", "icr_proxy", *rest[int(count):]])
"""


async def start(
    words: list[str], env: dict[str, str], *, passing: Sequence[socket.socket] = ()
) -> asyncio.subprocess.Process:
    """Start `icr-proxy` with these words, and with sockets as systemd passes them."""
    numbers = [each.fileno() for each in passing]
    launch = ["-c", PASS, str(len(numbers)), *map(str, numbers)] if passing else ["-m", "icr_proxy"]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *launch,
        *words,
        pass_fds=numbers,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )


@asynccontextmanager
async def program_before(
    emulator: Emulator, folder: Path, *words: str, **more: str
) -> AsyncIterator[Program]:
    """Run the program until it is ready; kill it in the end if it is still there."""
    process = await start(["run", *words], environment(emulator, folder, **more))
    async with _until_ready(process) as program:
        yield program


@asynccontextmanager
async def program_run(words: list[str], env: dict[str, str]) -> AsyncIterator[Program]:
    """Run the program with these words and variables and no others."""
    async with _until_ready(await start(words, env)) as program:
        yield program


@asynccontextmanager
async def program_passed(
    sockets: Sequence[socket.socket], emulator: Emulator, folder: Path, **more: str
) -> AsyncIterator[Program]:
    """Run the program as systemd does that listens for it."""
    process = await start(["run"], environment(emulator, folder, **more), passing=sockets)
    async with _until_ready(process) as program:
        yield program


@asynccontextmanager
async def _until_ready(process: asyncio.subprocess.Process) -> AsyncIterator[Program]:
    program = Program(process)
    try:
        ready = await program.until("proxy.ready")
        program.url = f"http://{ready['listeners'][0]}"
        program.admin = ready["admin"]
        yield program
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run_to_end(words: list[str], env: dict[str, str]) -> tuple[int, str, str]:
    """Run a command; give its exit code and what it wrote to both streams."""
    process = await start(words, env)
    async with asyncio.timeout(GUARD_SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
