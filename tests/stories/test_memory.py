"""Big bodies pass through a proxy that does not grow; it runs as a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stories.program import Program, program_before

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.emulator.server import Emulator

import aiohttp

from tests.scenes import TAG

MIB = 1024 * 1024
SIZE = 200 * MIB
GROWTH = 32 * MIB
PIECE = b"0123456789abcdef" * 4096


async def test_200_mib_up_and_down_in_less_than_32_mib(emulator: Emulator, tmp_path: Path) -> None:
    tag = {TAG: next(iter(emulator.world.installations))}
    async with program_before(emulator, tmp_path) as proxy, aiohttp.ClientSession() as session:
        async with session.get(f"{proxy.url}/_emulator/bytes/{MIB}", headers=tag) as warm:
            await warm.read()
        before = resident(proxy)

        async with session.get(f"{proxy.url}/_emulator/bytes/{SIZE}", headers=tag) as answer:
            received = 0
            async for piece in answer.content.iter_any():
                received += len(piece)
        async with session.post(f"{proxy.url}/_emulator/sink", headers=tag, data=big()) as answer:
            sunk = await answer.json()
        async with session.post(
            f"{proxy.url}/_emulator/sink",
            headers={**tag, "Content-Length": str(SIZE)},
            data=big(),
        ) as answer:
            sunk_with_length = await answer.json()

        grown = peak(proxy) - before

    digest = hashlib.sha256(PIECE * (SIZE // len(PIECE))).hexdigest()
    assert received == SIZE
    assert sunk == sunk_with_length == {"length": SIZE, "sha256": digest}
    assert grown < GROWTH, f"grew by {grown / MIB:.1f} MiB"


async def big() -> AsyncIterator[bytes]:
    for _ in range(SIZE // len(PIECE)):
        yield PIECE
        await asyncio.sleep(0)


def resident(proxy: Program) -> int:
    return status_bytes(proxy, "VmRSS")


def peak(proxy: Program) -> int:
    return status_bytes(proxy, "VmHWM")


def status_bytes(proxy: Program, name: str) -> int:
    lines = Path(f"/proc/{proxy.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
