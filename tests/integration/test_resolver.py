"""The program where no name is ever resolved: what is told to stop has stopped in time.

The resolver of the C library is asked in threads, which nothing can stop. Here it asks a server
that takes questions and does not answer. That needs root: port 53, and a mount namespace with a
`resolv.conf` of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from icr_proxy.admin.client import ask
from tests.support.app_fixture import request_head
from tests.support.program import environment, run_to_end
from tests.unit.cli.test_main import bare_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="port 53 and namespaces need root")

MOUNT = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
MAX_DRAIN = 2.0
GUARD_SECONDS = 60


@pytest.fixture
def resolver(tmp_path: Path) -> Iterator[list[str]]:
    """Give the beginning of a command line for which no name is resolved."""
    address = f"127.{random.randint(1, 250)}.{random.randint(0, 250)}.9"
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        silent.bind((address, 53))
        file = tmp_path / "resolv.conf"
        file.write_text(f"nameserver {address}\noptions timeout:10 attempts:3\n")
        yield ["unshare", "--mount", "/bin/sh", "-c", MOUNT, str(file), sys.executable, "-m"]


async def started(
    resolver: list[str], words: list[str], env: dict[str, str]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *resolver,
        "icr_proxy",
        *words,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def told_to_end(process: asyncio.subprocess.Process) -> tuple[int, float, str]:
    """Send SIGTERM; give exit code, seconds and all that was written."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(GUARD_SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, time.monotonic() - began, (out + err).decode()


async def test_a_drain_ends_in_time_and_records_are_written(
    resolver: list[str], emulator: Emulator, tmp_path: Path
) -> None:
    admin, trail = f"unix:{tmp_path / 'admin.sock'}", tmp_path / "trail"
    data = tmp_path / "data.sock"
    env = environment(
        emulator,
        tmp_path,
        ICR_PROXY_UPSTREAM__BASE_URL="http://slow.test:9",
        ICR_PROXY_UPSTREAM__ALLOW_PLAIN="true",
        ICR_PROXY_ADMIN__BIND=admin,
        ICR_PROXY_LISTENERS__0__BIND=f"unix:{data}",
        ICR_PROXY_SHUTDOWN__MAX_DRAIN=f"{MAX_DRAIN:g}s",
        ICR_PROXY_TOKENS__WAITER_TIMEOUT="1s",
        ICR_PROXY_TOKENS__MINT_TIMEOUT="1s",
        ICR_PROXY_AUDIT__DIRECTORY=str(trail),
    )
    process = await started(resolver, ["run"], env)
    assert (await run_to_end(["wait", "--admin", admin, "--timeout", "20"], env))[0] == 0
    answers = await asyncio.gather(*(asked(data, f"inst-{number}") for number in range(8)))
    assert await asyncio.to_thread(ask, admin, "/healthz") is None

    code, took, said = await told_to_end(process)
    verified = await run_to_end(["audit", "verify", str(trail), "--chain-only"], bare_environment())

    assert all(b" 50" in answer for answer in answers)
    assert code == 0
    assert took < MAX_DRAIN + 1
    assert '"event":"proxy.stopped"' in said
    assert verified[0] == 0, verified
    (segment,) = trail.glob("*.jsonl")
    kinds = [
        line.partition('"kind":"')[2].partition('"')[0] for line in segment.read_text().splitlines()
    ]
    assert kinds.count("request") == 8
    assert kinds[-2:] == ["stop", "end"]


async def asked(path: Path, tag: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request_head(tag=tag))
    line = await asyncio.wait_for(reader.readline(), 20)
    writer.close()
    return line


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--listen", "slow.test:8080"],
        ["run", "--admin", "slow.test:9090"],
        ["injector", "--listen", "slow.test:8443", "--self-signed", "--for", "localhost"],
        ["emulator", "--host", "slow.test", "--port", "0"],
    ],
    ids=" ".join,
)
async def test_a_start_that_hangs_is_ended_by_a_signal(
    words: list[str], resolver: list[str], emulator: Emulator, tmp_path: Path
) -> None:
    env = environment(emulator, tmp_path, ICR_PROXY_LISTENERS__0__EXPOSED="true")
    if "--admin" in words:
        env.pop("ICR_PROXY_ADMIN__BIND")
    process = await started(resolver, words, env)
    await asyncio.sleep(2.5)  # it waits for the name by then, or has ended
    assert process.returncode is None

    code, took, said = await told_to_end(process)

    assert (code, "Traceback" in said) == (0, False)
    assert took < 5


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        (["doctor"], 15),
        (["installations"], 15),
        (["check"], 15),
        (["health", "--admin", "slow.test:9090"], 5),
        (["wait", "--admin", "slow.test:9090", "--timeout", "1"], 8),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
async def test_a_command_ends_long_before_the_resolver(
    words: list[str], seconds: float, resolver: list[str], emulator: Emulator, tmp_path: Path
) -> None:
    env = environment(
        emulator,
        tmp_path,
        ICR_PROXY_UPSTREAM__BASE_URL="http://slow.test:9",
        ICR_PROXY_UPSTREAM__ALLOW_PLAIN="true",
        ICR_PROXY_UPSTREAM__TIMEOUTS__CONNECT="1s",
        ICR_PROXY_TOKENS__MINT_TIMEOUT="1s",
    )
    began = time.monotonic()
    process = await started(resolver, words, env)
    async with asyncio.timeout(GUARD_SECONDS):
        out, err = await process.communicate()

    assert time.monotonic() - began < seconds
    assert process.returncode in (0, 1)
    assert b"Traceback" not in out + err
