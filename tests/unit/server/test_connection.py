"""Requests have their turn, one after the other, in one task; whatever happens, it ends well."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar

import pytest
import uvloop

from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.errors import CallerTimeoutError
from icr_proxy.server import connection as turns
from icr_proxy.server.body_stream import BodyStream
from icr_proxy.server.listener import Listener
from icr_proxy.server.request import Request
from icr_proxy.server.response import ResponseWriter
from tests.support.app_fixture import TAG, read_answer, request_head

Run = Callable[[Awaitable[None]], None]
LEFT_BEHIND: ContextVar[str] = ContextVar("left_behind", default="nothing")
on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


async def answer(request: Request, body: bytes = b"ok") -> ResponseWriter:
    made = ResponseWriter(request, timeout=5, closing=lambda: False)
    made.begin(status=200, reason=b"OK", headers=[(b"Content-Length", b"%d" % len(body))])
    await made.write(body)
    await made.end()
    return made


def content_of(request: Request) -> BodyStream:
    assert request.content is not None
    return request.content


@asynccontextmanager
async def listening(
    respond: Callable[[Request], Awaitable[ResponseWriter]],
) -> AsyncIterator[tuple[Listener, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Give a listener that answers so, and a connection to it."""

    async def refuse(request: Request, _error: object) -> ResponseWriter:
        return await answer(request, b"refused")

    listener = Listener(
        "127.0.0.1:0",
        respond=respond,
        refuse=refuse,
        limits=LimitsConfig(),
        tag=TAG,
        logger=logging.getLogger("nobody"),
    )
    await listener.open()
    port = int(listener.address.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            yield listener, reader, writer
    finally:
        writer.close()
        await listener.close()


@on_both_loops
def test_all_requests_of_a_connection_are_served_by_one_task(run: Run) -> None:
    tasks, before = [], []

    async def respond(request: Request) -> ResponseWriter:
        tasks.append(asyncio.current_task())
        before.append(LEFT_BEHIND.get())
        LEFT_BEHIND.set("something")
        return await answer(request)

    async def scene() -> None:
        async with listening(respond) as (_, reader, writer):
            for _ in range(3):
                writer.write(request_head())
                await read_answer(reader)

    run(scene())

    assert len(tasks) == 3
    assert len(set(tasks)) == 1
    assert before == ["nothing", "something", "something"]


@on_both_loops
def test_whoever_reads_a_body_hears_that_its_caller_has_left(run: Run) -> None:
    ended: list[BaseException] = []
    reached = asyncio.Event()

    async def respond(request: Request) -> ResponseWriter:
        reached.set()
        try:
            while True:
                await content_of(request).read()
        except BaseException as error:
            ended.append(error)
            raise

    async def scene() -> None:
        async with listening(respond) as (listener, _, writer):
            writer.write(request_head("POST", extra="Content-Length: 3\r\n") + b"ab")
            await reached.wait()
            writer.close()
            while listener.connections:  # noqa: ASYNC110  # the listener tells nobody
                await asyncio.sleep(0.005)

    run(scene())

    assert [type(error) for error in ended] == [asyncio.CancelledError]


@on_both_loops
def test_a_listener_that_closes_waits_a_moment_for_an_answer_under_way(run: Run) -> None:
    async def respond(request: Request) -> ResponseWriter:
        reached.set()
        await go.wait()
        return await answer(request)

    async def scene() -> None:
        async with listening(respond) as (listener, reader, writer):
            writer.write(request_head())
            await reached.wait()
            asyncio.get_running_loop().call_later(0.01, go.set)
            await listener.close()

            assert (await read_answer(reader)).body == b"ok"
            assert await reader.read() == b""

    reached, go = asyncio.Event(), asyncio.Event()
    run(scene())


@on_both_loops
def test_a_listener_that_closes_does_not_wait_for_ever(run: Run) -> None:
    async def respond(_request: Request) -> ResponseWriter:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async def scene() -> None:
        async with listening(respond) as (listener, reader, writer):
            writer.write(request_head())
            await reached.wait()
            await listener.close()
            with suppress(ConnectionError):
                assert await reader.read() == b""
            await ended.wait()

    reached, ended = asyncio.Event(), asyncio.Event()
    run(scene())


HEAD_OF_UPLOAD = request_head("POST", extra="Content-Length: 200000\r\n")
HEAD_OF_CHUNKS = request_head("POST", extra="Transfer-Encoding: chunked\r\n")


@on_both_loops
@pytest.mark.parametrize(
    ("head", "piece", "count"),
    [
        pytest.param(HEAD_OF_UPLOAD, b"x" * 10_000, 20, id="sized"),
        pytest.param(HEAD_OF_UPLOAD, b"x" * 10_000, 12, id="more than a buffer, and not all"),
        pytest.param(HEAD_OF_UPLOAD, b"x" * 10_000, 40, id="more than announced"),
        pytest.param(HEAD_OF_CHUNKS, b"5\r\nhello\r\n", 30, id="chunked"),
        pytest.param(HEAD_OF_CHUNKS, b"not a chunk", 30, id="malformed"),
        pytest.param(request_head(), b"nonsense\r\n\r\n", 30, id="garbage"),
        pytest.param(b"", b"GET /" + b"a" * 9000, 30, id="too long"),
        pytest.param(HEAD_OF_UPLOAD, request_head() * 1000, 30, id="pipelined"),
    ],
)
def test_a_caller_that_reads_only_after_it_has_sent_gets_an_early_answer(
    run: Run, head: bytes, piece: bytes, count: int
) -> None:
    """RFC 9112, 9.6: closed with unread bytes, the connection would be reset (yarp#1501)."""

    async def respond(request: Request) -> ResponseWriter:
        if request.body_exists:  # and a part of it has come, so that somebody waits for the rest
            reading = asyncio.ensure_future(content_of(request).read())
            await asyncio.sleep(0)
            reading.cancel()
        return await answer(request)

    async def scene() -> None:
        async with listening(respond) as (listener, reader, writer):
            raw = writer.get_extra_info("socket")
            writer.write(head)
            for _ in range(count):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.002)
            assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            assert (await read_answer(reader)).status == 200
            assert listener.connections == 1
            writer.close()
            while listener.connections:  # noqa: ASYNC110  # the listener tells nobody
                await asyncio.sleep(0.005)

    run(scene())


@on_both_loops
def test_nothing_follows_a_body_that_nobody_read(run: Run) -> None:
    served = 0

    async def counting(request: Request) -> ResponseWriter:
        nonlocal served
        served += 1
        return await answer(request)

    async def scene() -> None:
        async with listening(counting) as (_, reader, writer):
            writer.write(HEAD_OF_UPLOAD + b"ab")
            first = await read_answer(reader)
            writer.write(b"c" * 199_998 + request_head())

            assert first.values(b"Connection") == [b"close"]
            assert await reader.read() == b""
            assert served == 1

    run(scene())


@pytest.mark.parametrize(
    ("constant", "limit", "pause"),
    [
        pytest.param("LINGER_SECONDS", 0.2, 0.01, id="time"),
        pytest.param("LINGER_BYTES", 300_000, 0.0, id="bytes"),
        pytest.param("LINGER_IDLE_SECONDS", 0.05, 0.2, id="silence"),
    ],
)
async def test_what_is_discarded_is_bounded(
    constant: str, limit: float, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, constant, limit)

    async def send_on(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"a" * 65536)
            await writer.drain()
            await asyncio.sleep(pause)

    async with listening(answer) as (_, _reader, writer):
        writer.write(request_head("POST", extra="Content-Length: 9999999999\r\n"))
        with pytest.raises(ConnectionError):
            await send_on(writer)


async def test_a_pipeline_whose_answers_wait_for_nothing_leaves_others_their_turn() -> None:
    served = []

    async def respond(request: Request) -> ResponseWriter:
        served.append(request.raw_path)
        return await answer(request)

    async with listening(respond) as (listener, _, writer):
        port = int(listener.address.rpartition(":")[2])
        reader, other = await asyncio.open_connection("127.0.0.1", port)
        other.write(request_head(target="/other"))
        writer.write(request_head(target="/many") * 60)
        await read_answer(reader)
        while len(served) < 61:  # noqa: ASYNC110  # a list tells nobody
            await asyncio.sleep(0)
        other.close()

    assert served.index("/other") < 30


async def test_an_unread_body_that_was_whole_does_not_end_the_connection() -> None:
    async with listening(answer) as (_, reader, writer):
        for _ in range(3):
            writer.write(request_head("POST", extra="Content-Length: 2\r\n") + b"ab")
            assert (await read_answer(reader)).values(b"Connection") == []


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        pytest.param(RuntimeError("secret"), ["a request could not be ended"], id="of ours"),
        pytest.param(CallerTimeoutError("stopped reading"), [], id="of the caller's"),
    ],
)
async def test_nothing_follows_a_request_that_could_not_be_ended(
    error: Exception, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def respond(request: Request) -> ResponseWriter:
        await content_of(request).read()
        raise error

    async with listening(respond) as (_, reader, writer):
        writer.write(request_head("POST", extra="Content-Length: 2\r\n") + b"ab" + request_head())
        rest = await reader.read()

    assert rest == b""
    assert [record.getMessage() for record in caplog.records] == logged


class Nowhere(asyncio.Transport):
    """A transport that goes nowhere."""

    def close(self) -> None:
        """Nothing is open."""

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


async def test_a_connection_that_ends_before_its_first_turn_serves_nobody() -> None:
    async def respond(_request: Request) -> ResponseWriter:
        raise AssertionError

    async with listening(respond) as (listener, _, _writer):
        connection = listener.new_connection()
        connection.connection_made(Nowhere())
        await asyncio.sleep(0)
        data = request_head()
        connection.get_buffer(-1)[: len(data)] = data
        connection.buffer_updated(len(data))
        connection.force_close()
        await asyncio.sleep(0)
        await connection.drain()

        connection.connection_lost(None)
