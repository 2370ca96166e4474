"""An API that hangs, a caller that leaves, in every phase; nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

import pytest

from icr_proxy.upstream.dialer import parse_address
from tests.support.app_fixture import RunningProxy, Visit, call, read_answer, request_head
from tests.support.failing import (
    CHUNKED,
    UNTIL_CLOSE,
    WITH_LENGTH,
    Run,
    for_read_and_write,
    nobody_answers,
    on_both_loops,
    plainly,
    settled,
    silent,
    stage,
    until_gone,
)

# -- an API that hangs ----------------------------------------------------------------------------


@on_both_loops
@for_read_and_write
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="before the head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConte", id="in the head"),
        pytest.param(b"HTTP/1.1 102 Processing\r\n\r\n", id="after an interim answer"),
    ],
)
def test_an_api_that_hangs_before_its_answer_is_a_timeout(
    run: Run, said: bytes, method: str
) -> None:
    async def scene() -> None:
        async def script(visit: Visit, _head: bytes) -> None:
            await visit.say(said)
            await until_gone(visit)

        async with stage(script, first_byte=0.1) as (proxy, api):
            answer = await call(proxy.port, request_head(method))

            assert (answer.status, answer.problem["code"]) == (504, "upstream-timeout")
            assert len(api.heads) == 1

    run(scene())


@on_both_loops
@pytest.mark.parametrize("said", [WITH_LENGTH, CHUNKED, UNTIL_CLOSE])
def test_an_api_that_hangs_in_the_body_breaks_the_callers_connection(run: Run, said: bytes) -> None:
    async def scene() -> None:
        async def script(visit: Visit, _head: bytes) -> None:
            await visit.say(said)
            await until_gone(visit)

        async with stage(script, idle=0.1) as (proxy, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request_head())
            await reader.readuntil(b"hello")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            assert proxy.log("request.done")[-1]["code"] == "upstream-timeout"

    run(scene())


@on_both_loops
def test_an_api_that_does_not_take_the_upload_is_a_timeout(run: Run) -> None:
    async def scene() -> None:
        over = asyncio.Event()

        async def script(_visit: Visit, _head: bytes) -> None:
            await over.wait()

        async with stage(script, idle=0.1) as (proxy, _):
            size = 64 * 1024 * 1024
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request_head("POST", extra=f"Content-Length: {size}\r\n"))
            writer.write(bytes(size))
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                assert (await read_answer(reader)).problem["code"] == "upstream-timeout"
            writer.transport.abort()
            await settled(proxy)
            assert proxy.log("request.done")[-1]["code"] == "upstream-timeout"
            over.set()

    run(scene())


@on_both_loops
@for_read_and_write
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_api_that_hangs_while_connecting_is_a_timeout(
    run: Run, method: str, scheme: str
) -> None:
    async def scene() -> None:
        async with stage(plainly, connect=0.1) as (proxy, _):
            with nobody_answers() as port:
                url = f"{scheme}://127.0.0.1:{port}"
                proxy.app.outbound.pool._address = parse_address(url, ca_file=None)
                answer = await call(proxy.port, request_head(method))

            assert (answer.status, answer.problem["code"]) == (504, "upstream-timeout")
            assert proxy.metric("upstream_connects_total", result="timeout") == 1

    run(scene())


@on_both_loops
def test_an_api_that_hangs_in_the_handshake_is_a_timeout(run: Run) -> None:
    async def scene() -> None:
        ended = asyncio.Event()
        async with stage(plainly, connect=0.1) as (proxy, _), silent(ended) as url:
            proxy.app.outbound.pool._address = parse_address(url, ca_file=None)
            answer = await call(proxy.port, request_head("POST"))
            async with asyncio.timeout(10):
                await ended.wait()

            assert (answer.status, answer.problem["code"]) == (504, "upstream-timeout")

    run(scene())


# -- a caller that leaves -------------------------------------------------------------------------

PHASES = (
    "waiting for a token",
    "waiting for a connection",
    "connecting",
    "before the head",
    "in the head",
    "in the body",
    "in the upload",
)


@on_both_loops
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_caller_that_leaves_leaves_nothing_behind(run: Run, phase: str, how: str) -> None:
    async def scene() -> None:
        reached, ended = asyncio.Event(), asyncio.Event()

        async def script(visit: Visit, _head: bytes) -> None:
            said = {"in the head": b"HTTP/1.1 200 OK\r\nConte", "in the body": CHUNKED}
            await visit.say(said.get(phase, b""))
            reached.set()
            await until_gone(visit)
            ended.set()

        async with AsyncExitStack() as stack:
            proxy, api = await stack.enter_async_context(stage(script))
            others = await prepare(phase, proxy, stack, ended)
            reader, writer = await begin(phase, proxy)
            await arrived(phase, proxy, reader, reached)
            if how == "reset":
                Visit(0, reader, writer).reset()
            else:
                writer.close()
            async with asyncio.timeout(10):
                while proxy.app.inbound.in_flight.count > len(others):  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0.001)
                for other in others:
                    other.close()
                if phase != "waiting for a token":
                    await ended.wait()
                await settled(proxy)

            line = proxy.log("request.done")[1]
            assert (line["status"], line["code"]) == (499, "caller-gone")
            assert proxy.app.outbound.pool.idle <= (phase == "waiting for a token")
            sent = {"waiting for a token": 0, "connecting": 0, "waiting for a connection": 2}
            assert len(api.heads) == sent.get(phase, 1)

    run(scene())


async def prepare(
    phase: str, proxy: RunningProxy, stack: AsyncExitStack, ended: asyncio.Event
) -> list[asyncio.StreamWriter]:
    """Set the stage; give the other callers who are on it."""
    if phase == "connecting":
        url = await stack.enter_async_context(silent(ended))
        proxy.app.outbound.pool._address = parse_address(url, ca_file=None)
    if phase != "waiting for a connection":
        return []
    others = []
    while proxy.app.outbound.pool.free:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head())
        others.append(writer)
        free = proxy.app.outbound.pool.free
        while proxy.app.outbound.pool.free == free:  # noqa: ASYNC110  # a pool tells nobody
            await asyncio.sleep(0.001)
    return others


async def begin(
    phase: str, proxy: RunningProxy
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    tag = "inst-new" if phase == "waiting for a token" else "inst-1"
    length = "Content-Length: 1000\r\n" if phase == "in the upload" else ""
    writer.write(request_head("POST", tag=tag, extra=length) + (b"half" if length else b""))
    return reader, writer


async def arrived(
    phase: str, proxy: RunningProxy, reader: asyncio.StreamReader, reached: asyncio.Event
) -> None:
    """Wait until the request is where the caller shall leave it."""
    tokens, pool = proxy.app.credentials.tokens, proxy.app.outbound.pool
    waits: dict[str, Callable[[], bool]] = {
        "waiting for a token": lambda: tokens.minting > 0,
        "waiting for a connection": lambda: pool.waiting > 0,
        "connecting": lambda: pool.connecting > 0,
    }
    async with asyncio.timeout(10):
        if phase in waits:
            while not waits[phase]():  # noqa: ASYNC110  # they tell nobody
                await asyncio.sleep(0)
        else:
            await reached.wait()
        if phase == "in the body":
            await reader.readuntil(b"hello")
