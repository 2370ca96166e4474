"""Stages for conversations that fail: afterwards, nothing may be left behind."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from icr_proxy.config.models import TimeoutsConfig
from tests.integration.test_upstream_tls import trust
from tests.support.app_fixture import (
    RunningProxy,
    ScriptedUpstream,
    Visit,
    call,
    config_for,
    ok,
    request_head,
    running,
    scripted_upstream,
)

Run = Callable[[Awaitable[None]], None]
Script = Callable[[Visit, bytes], Awaitable[None]]
CONNECTIONS = 2
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
WITH_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhello"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello"
on_both_loops = pytest.mark.parametrize(
    "run", [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
)
for_read_and_write = pytest.mark.parametrize("method", ["GET", "POST"])


async def plainly(visit: Visit, _head: bytes) -> None:
    await visit.say(ok(b"done"))


async def until_gone(visit: Visit) -> None:
    with suppress(ConnectionError):
        while await visit.reader.read(65536):
            pass


@asynccontextmanager
async def stage(
    script: Script, *, tls: ssl.SSLContext | None = None, folder: Path = Path(), **timeouts: float
) -> AsyncIterator[tuple[RunningProxy, ScriptedUpstream]]:
    """Run a proxy that has its token, and check at the end that nothing is left behind."""
    upstream: dict[str, Any] = {
        "connections": CONNECTIONS,
        "ca_file": trust(folder) if tls else None,
    }

    async def primed(visit: Visit, head: bytes) -> None:
        await (plainly if b"/prime" in head else script)(visit, head)

    async with (
        scripted_upstream(primed, tls=tls) as api,
        running(config_for(api.url, upstream=upstream)) as proxy,
    ):
        assert (await call(proxy.port, request_head(target="/prime"))).status == 200
        proxy.app.outbound.pool.close()
        # Not before: on a busy machine, the token itself may take longer.
        proxy.app.outbound.pool._timeouts = TimeoutsConfig(**timeouts)
        api.heads.clear()
        yield proxy, api
        await settled(proxy)


async def settled(proxy: RunningProxy) -> None:
    """Wait until every request is over; nothing of them may be left."""
    try:
        async with asyncio.timeout(10):
            await proxy.app.inbound.in_flight.until_idle()
            while left_over(proxy):  # noqa: ASYNC110  # a mint outlives its caller, but not for long
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(left_over(proxy)) from None


def left_over(proxy: RunningProxy) -> dict[str, object]:
    """Give what a request that is over must not leave behind."""
    pool = proxy.app.outbound.pool
    names = [task.get_name() for task in asyncio.all_tasks()]
    found = {
        "active": pool.active,
        "connecting": pool.connecting,
        "waiting": pool.waiting,
        "not free": CONNECTIONS - pool.free,
        "tasks": [name for name in names if name == "upload" or name.startswith("mint")],
    }
    return {what: left for what, left in found.items() if left}


@contextmanager
def nobody_answers() -> Iterator[int]:
    """Give the port of a listener whose backlog is full: it takes no SYN."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        try:
            yield port
        finally:
            for one in waiting:
                one.close()


@asynccontextmanager
async def silent(ended: asyncio.Event) -> AsyncIterator[str]:
    """Take connections and never say a word; tell when the other side has given up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(65536):
                pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
