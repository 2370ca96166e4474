"""What a request leaves is gone with it: nothing waits for the garbage collector.

It comes seldom (`process.COLLECT_AFTER`). A circle for each request would keep bodies and the
connection's memory until then, and cost a twentieth of the time to find.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from tests.support.app_fixture import TAG, proxy_before, read_answer

if TYPE_CHECKING:
    from icr_proxy.emulator.server import Emulator

TIMES = 20


@pytest.mark.parametrize(
    ("line", "headers", "body", "status"),
    [
        pytest.param("GET /projects", "", b"", 200, id="a read"),
        pytest.param("GET /nothing", "", b"", 404, id="an error of the API"),
        pytest.param("GET /projects", f"{TAG}: other\r\n", b"", 400, id="a refusal"),
        pytest.param("POST /projects", "Content-Length: 2\r\n", b"{}", 404, id="a body"),
    ],
)
async def test_nothing_of_a_request_is_left_to_the_collector(
    emulator: Emulator, line: str, headers: str, body: bytes, status: int
) -> None:
    tag = f"{TAG}: {next(iter(emulator.world.installations))}"
    request = f"{line} HTTP/1.1\r\nHost: localhost\r\n{tag}\r\n{headers}\r\n".encode() + body
    async with proxy_before(emulator) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

        async def ask() -> None:
            writer.write(request)
            assert (await read_answer(reader)).status == status

        await ask()
        gc.collect()
        gc.disable()
        try:
            for _ in range(TIMES):
                await ask()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [f"{type(each).__module__}.{type(each).__name__}" for each in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        writer.close()

    ours = [name for name in left if name.startswith("icr_proxy.") and ".emulator." not in name]
    assert ours == []
