"""Big bodies pass through a proxy that does not grow; it runs as a process of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from icr_proxy.emulator.server import Emulator
from tests.support.flood import MIB, BigApi, big_api, download, upload
from tests.support.program import Program, program_before

GIB = 1024 * MIB
GROWTH = 24 * MIB
HELD = 64 * MIB  # by sockets, on both sides of the proxy; by the proxy itself no more than GROWTH


@dataclass
class Stage:
    """A proxy that has carried something already, and its size at that time."""

    proxy: Program
    api: BigApi
    before: int

    @property
    def growth(self) -> int:
        return status_bytes(self.proxy, "VmHWM") - self.before


def status_bytes(proxy: Program, name: str) -> int:
    lines = Path(f"/proc/{proxy.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@asynccontextmanager
async def stage(emulator: Emulator, folder: Path) -> AsyncIterator[Stage]:
    with big_api() as api:
        base = {"ICR_PROXY_UPSTREAM__BASE_URL": api.url}
        async with program_before(emulator, folder, **base) as proxy:
            await asyncio.to_thread(download, proxy.port, MIB)
            await asyncio.to_thread(upload, proxy.port, MIB)
            yield Stage(proxy, api, status_bytes(proxy, "VmRSS"))


async def test_a_gibibyte_down_and_up_in_less_than_24_mib(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with stage(emulator, tmp_path) as on:
        down = await asyncio.to_thread(download, on.proxy.port, GIB)
        up = await asyncio.to_thread(upload, on.proxy.port, GIB)

        assert (down, up) == (GIB, b"%d" % GIB)
        assert on.growth < GROWTH, f"grew by {on.growth / MIB:.1f} MiB"


async def test_without_a_length_it_is_the_same(emulator: Emulator, tmp_path: Path) -> None:
    size = 128 * MIB
    async with stage(emulator, tmp_path) as on:
        down = await asyncio.to_thread(download, on.proxy.port, size, chunked=True)
        up = await asyncio.to_thread(upload, on.proxy.port, size, chunked=True)

        assert (down, up) == (size, b"%d" % size)
        assert on.growth < GROWTH, f"grew by {on.growth / MIB:.1f} MiB"


async def still(position: Callable[[], int]) -> int:
    """Wait until something has begun and nothing moves any more; say how far it came."""
    before, now = 0, position()
    while not now or before != now:
        await asyncio.sleep(0.5)
        before, now = now, position()
    return now


async def test_a_caller_that_pauses_stops_the_api_and_then_gets_everything(
    emulator: Emulator, tmp_path: Path
) -> None:
    size, go = 256 * MIB, threading.Event()

    def pause(got: int) -> None:
        if got == MIB:
            assert go.wait(60)

    async with stage(emulator, tmp_path) as on:
        on.api.sent = 0
        getting = asyncio.create_task(  # noqa: TID251  # ends in this function
            asyncio.to_thread(download, on.proxy.port, size, pause=pause)
        )
        held = await still(lambda: on.api.sent)
        grown_while_held = on.growth
        go.set()

        assert held < HELD
        assert grown_while_held < GROWTH
        assert await getting == size
        assert on.growth < GROWTH, f"grew by {on.growth / MIB:.1f} MiB"


async def test_an_api_that_pauses_stops_the_caller_and_then_takes_everything(
    emulator: Emulator, tmp_path: Path
) -> None:
    size, sent = 256 * MIB, 0

    def told(position: int) -> None:
        nonlocal sent
        sent = position

    async with stage(emulator, tmp_path) as on:
        on.api.hold.clear()
        sending = asyncio.create_task(  # noqa: TID251  # ends in this function
            asyncio.to_thread(upload, on.proxy.port, size, told=told)
        )
        held = await still(lambda: sent)
        on.api.hold.set()

        assert held < HELD
        assert await sending == b"%d" % size
        assert on.growth < GROWTH, f"grew by {on.growth / MIB:.1f} MiB"
