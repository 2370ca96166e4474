"""What is not a request, or too much of one, gets an answer in the shape of every other refusal."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.server.connection import BACKLOG_MOST, BODY_MOST
from icr_proxy.server.listener import Listener
from tests.support.app_fixture import (
    TAG,
    RawAnswer,
    RunningProxy,
    ScriptedUpstream,
    Visit,
    call,
    config_for,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)

NOWHERE = "http://127.0.0.1:9"
LIMITS = LimitsConfig(headers=4096, uri=1024)


@asynccontextmanager
async def proxy_with(limits: LimitsConfig = LIMITS) -> AsyncIterator[RunningProxy]:
    async with running(config_for(NOWHERE, limits=limits)) as proxy:
        yield proxy


@asynccontextmanager
async def stage(
    script: Callable[[Visit, bytes], Awaitable[None]], **sections: Any
) -> AsyncIterator[RunningProxy]:
    async with scripted_upstream(script) as api, running(config_for(api.url, **sections)) as proxy:
        yield proxy


async def refused(request: bytes, limits: LimitsConfig = LIMITS) -> RawAnswer:
    """Send it and check that the connection ends with the one answer to it."""
    async with proxy_with(limits) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request)
        async with asyncio.timeout(5):
            answer = await read_answer(reader)
            assert await reader.read() == b""
        writer.close()
        assert answer.values(b"Connection") == [b"close"]
        [line] = proxy.log("request.done")
        assert line["code"] == answer.problem["code"]
        assert line["status"] == answer.status
        return answer


def with_line(line: bytes) -> bytes:
    return request_head()[:-2] + line + b"\r\n\r\n"


# -- what cannot be parsed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS to a plain port"),
        pytest.param(b"nonsense\r\n\r\n", id="nonsense"),
        pytest.param(b"GET\r\n\r\n", id="no target"),
        pytest.param(b"GE\x01T / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="control in the method"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no Host"),
        pytest.param(b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", id="HTTP/3"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 without asking"),
        pytest.param(b"GET / HTTP/1.1\nHost: localhost\n\n", id="bare line feeds"),
        pytest.param(with_line(b"X-A : 1"), id="space before the colon"),
        pytest.param(with_line(b"X-A: a\x00b"), id="NUL"),
        pytest.param(with_line(b"X-A: a\rb"), id="bare CR"),
        pytest.param(with_line(b"Host: localhost"), id="two Hosts"),
        pytest.param(with_line(b"no colon"), id="no colon"),
        pytest.param(with_line(b" folded: x"), id="folded first line"),
        pytest.param(with_line(b"Content-Length: 1\r\nContent-Length: 2"), id="two lengths"),
        pytest.param(with_line(b"Content-Length: x"), id="length is no number"),
        pytest.param(with_line(b"Content-Length: -1"), id="negative length"),
        pytest.param(with_line(b"Content-Length: +1"), id="length with a sign"),
        pytest.param(
            with_line(b"Content-Length: 1\r\nTransfer-Encoding: chunked"), id="two framings"
        ),
        pytest.param(with_line(b"Transfer-Encoding: gzip"), id="coding without an end"),
        pytest.param(with_line(b"Transfer-Encoding: chunked, gzip"), id="chunked is not last"),
    ],
)
async def test_what_is_not_a_request_is_a_bad_request(request_: bytes) -> None:
    answer = await refused(request_)

    assert answer.status == 400
    assert answer.problem["code"] == "bad-request"


async def test_a_request_of_http_2_on_a_plain_line_is_refused() -> None:
    async with proxy_with() as proxy:
        answer = await call(proxy.port, request_head().replace(b"HTTP/1.1", b"HTTP/2.0"))

    assert answer.problem["code"] == "bad-request"


@pytest.mark.parametrize("value", [b"a\rb", b"a\x00b", b"inst\x0b1"])
async def test_controls_in_the_tag_are_an_invalid_installation(value: bytes) -> None:
    answer = await refused(request_head(tag=None)[:-2] + f"{TAG}: ".encode() + value + b"\r\n\r\n")

    assert answer.problem["code"] == "installation-invalid"
    assert value not in answer.body


# -- too much -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(request_head(target="/" + "a" * 1024), "uri-too-long", id="target"),
        pytest.param(request_head(target="/" + "a" * 200_000), "uri-too-long", id="endless target"),
        pytest.param(with_line(b"X: " + b"a" * 5000), "headers-too-large", id="value"),
        pytest.param(with_line(b"X" * 5000 + b": a"), "headers-too-large", id="name"),
        pytest.param(with_line(b"X: a\r\n" * 129 + b"Y: b"), "headers-too-large", id="number"),
        pytest.param(with_line(b"X: " + b"a" * 200_000), "headers-too-large", id="endless value"),
    ],
)
async def test_too_long_a_head_is_told_apart(request_: bytes, code: str) -> None:
    answer = await refused(request_)

    assert answer.problem["code"] == code
    assert answer.status == {"uri-too-long": 414, "headers-too-large": 431}[code]


async def test_all_headers_together_are_limited_too() -> None:
    async with proxy_with() as proxy:
        answer = await call(proxy.port, with_line(b"\r\n".join([b"X: " + b"a" * 500] * 9)))

    assert answer.problem["code"] == "headers-too-large"
    assert answer.status == 431


async def test_what_is_just_within_the_limits_passes() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok())

    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, limits=LIMITS)) as proxy,
    ):
        head = request_head(target="/" + "a" * 1023)
        used = sum(len(line) + 2 for line in head.split(b"\r\n")[1:-2])
        filler = b"X: " + b"a" * (4096 - used - 5)
        answer = await call(proxy.port, head[:-2] + filler + b"\r\n\r\n")

    assert answer.status == 200


def test_limits_that_are_equal_can_still_be_told_apart() -> None:
    async def scene() -> None:
        limits = LimitsConfig(headers=4096, uri=4096)
        uri = await refused(request_head(target="/" + "a" * 5000), limits)
        header = await refused(with_line(b"X: " + b"a" * 5000), limits)

        assert uri.problem["code"] == "uri-too-long"
        assert header.problem["code"] == "headers-too-large"

    asyncio.run(scene())


# -- connections ----------------------------------------------------------------------------------


async def test_garbage_after_a_request_is_answered_after_it() -> None:
    begun = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        begun.set()
        await visit.say(ok())

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head())
        await begun.wait()
        writer.write(b"garbage\r\n\r\n")
        first, second = await read_answer(reader), await read_answer(reader)
        rest = await reader.read()
        writer.close()

    assert (first.status, second.status) == (200, 400)
    assert rest == b""


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_no_answer_follows_a_handler_that_failed(run: Callable[[Awaitable[None]], None]) -> None:
    """It would be taken for the answer to the caller's next request."""

    async def respond(request: Any, _error: object = None) -> Any:
        request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        raise RuntimeError("secret")

    async def scene() -> None:
        listener = Listener(
            "127.0.0.1:0",
            respond=respond,
            refuse=respond,
            limits=LimitsConfig(),
            tag=TAG,
            logger=logging.getLogger("nobody"),
        )
        await listener.open()
        port = int(listener.address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_head())
        async with asyncio.timeout(5):
            everything = await reader.read()
        writer.close()
        await listener.close()

        assert everything == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    run(scene())


async def test_a_log_that_cannot_be_written_costs_no_answer() -> None:
    def full(_outcome: object) -> None:
        raise OSError("no space left")

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(b"done"))

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        proxy.app.inbound.handlers[0]._read = full
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head())
        async with asyncio.timeout(5):
            answer = await read_answer(reader)
            rest = await reader.read()
        writer.close()

        (told,) = proxy.log("library.error")

    assert answer.body == b"done"
    assert rest == b""
    assert told["error"] == "OSError"


# -- times and numbers ----------------------------------------------------------------------------


@asynccontextmanager
async def connected(
    proxy: RunningProxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Be a caller with an open connection, and no patience without end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()


async def test_an_idle_connection_is_closed_in_time() -> None:
    async with (
        proxy_with(LimitsConfig(idle_timeout=0.05)) as proxy,
        connected(proxy) as (reader, _),
    ):
        assert await reader.read() == b""


@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nHo", b"\r"])
async def test_a_head_that_is_not_whole_in_time_is_told_so(begun: bytes) -> None:
    limits = LimitsConfig(head_timeout=0.05)
    async with proxy_with(limits) as proxy, connected(proxy) as (reader, writer):
        writer.write(begun)
        answer = await read_answer(reader)
        rest = await reader.read()

    assert (answer.status, answer.problem["code"]) == (408, "request-timeout")
    assert rest == b""
    assert proxy.log("request.done")[0]["code"] == "request-timeout"


async def test_a_head_in_many_pieces_gets_no_more_time() -> None:
    """Slow loris: each byte would begin a new time limit."""
    limits = LimitsConfig(head_timeout=0.2, idle_timeout=0.1)
    async with (
        proxy_with(limits) as proxy,
        connected(proxy) as (reader, writer),
        asyncio.TaskGroup() as group,
    ):
        answered = group.create_task(read_answer(reader), name="answer")
        for byte in request_head() * 100:
            if answered.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)

    assert answered.result().status == 408


async def test_the_head_of_a_pipelined_request_has_a_time_limit_too() -> None:
    limits = LimitsConfig(head_timeout=0.05)
    async with one_api(limits=limits) as (proxy, api), connected(proxy) as (reader, writer):
        writer.write(request_head() + b"GET / HT")
        answers = [await read_answer(reader), await read_answer(reader)]
        rest = await reader.read()

    assert [answer.status for answer in answers] == [200, 408]
    assert len(api.heads) == 1
    assert rest == b""


async def test_a_request_may_take_longer_than_its_head() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await asyncio.sleep(0.2)
        await visit.say(ok())

    limits = LimitsConfig(head_timeout=0.05, idle_timeout=0.05)
    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, limits=limits)) as proxy,
    ):
        assert (await call(proxy.port, request_head())).status == 200


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_more_connections_than_are_allowed_are_closed_at_once(
    run: Callable[[Awaitable[None]], None],
) -> None:
    async def scene() -> None:
        async with one_api(limits=LimitsConfig(connections=2)) as (proxy, _):
            async with connected(proxy) as first, connected(proxy) as second:
                for reader, writer in (first, second):
                    writer.write(request_head())
                    assert (await read_answer(reader)).status == 200
                async with connected(proxy) as (reader, _writer):
                    with suppress(ConnectionError):
                        assert await reader.read() == b""
                assert proxy.metric("caller_connections") == 2
            while proxy.metric("caller_connections"):  # noqa: ASYNC110  # a metric tells nobody
                await asyncio.sleep(0.005)
            assert (await call(proxy.port, request_head())).status == 200

            assert proxy.metric("caller_connects_total", result="accepted") == 3
            assert proxy.metric("caller_connects_total", result="refused") == 1

    run(scene())


# -- endings --------------------------------------------------------------------------------------


@asynccontextmanager
async def one_api(**sections: Any) -> AsyncIterator[tuple[RunningProxy, ScriptedUpstream]]:
    """Give a proxy before an API that answers everything with the target that was asked for."""

    async def script(visit: Visit, head: bytes) -> None:
        await visit.say(ok(head.split(b" ")[1]))

    async with scripted_upstream(script) as api, running(config_for(api.url, **sections)) as proxy:
        yield proxy, api


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_caller_that_ends_its_sending_side_counts_as_gone(
    run: Callable[[Awaitable[None]], None],
) -> None:
    """As with nginx, Envoy and Go: a caller that has left looks just the same."""

    async def scene() -> None:
        reached, ended = asyncio.Event(), asyncio.Event()

        async def script(visit: Visit, _head: bytes) -> None:
            reached.set()
            await visit.reader.read()
            ended.set()

        async with (
            scripted_upstream(script) as api,
            running(config_for(api.url)) as proxy,
            connected(proxy) as (reader, writer),
        ):
            writer.write(request_head())
            await reached.wait()
            writer.write_eof()
            rest = await reader.read()
            await ended.wait()

            assert rest == b""
            [line] = proxy.log("request.done")
            assert (line["status"], line["code"]) == (499, "caller-gone")

    run(scene())


async def test_half_a_request_is_not_served() -> None:
    async with one_api() as (proxy, api), connected(proxy) as (reader, writer):
        writer.write(request_head("POST", extra="Content-Length: 3\r\n") + b"ab")
        writer.write_eof()
        rest = await reader.read()

    assert rest == b""
    assert [head for head in api.heads if b"POST /projects" not in head] == []


async def test_a_refused_caller_that_still_sends_can_read_why() -> None:
    """Closed with unread bytes, the connection would be reset, and the answer lost."""
    async with proxy_with() as proxy, connected(proxy) as (reader, writer):
        writer.write(b"GET /" + b"a" * 4096)
        answer = await read_answer(reader)
        for _ in range(10):
            writer.write(b"a" * 65536)
            await writer.drain()
        rest = await reader.read()

    assert answer.status == 414
    assert rest == b""


async def test_what_a_refused_caller_sends_is_not_read_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("icr_proxy.server.connection.LINGER_SECONDS", 0.3)

    async with proxy_with() as proxy, connected(proxy) as (_, writer):
        writer.write(b"nonsense\r\n\r\n")

        async def send_on() -> None:
            while True:
                writer.write(b"a" * 65536)
                await writer.drain()
                await asyncio.sleep(0.01)

        with pytest.raises(ConnectionError):
            await send_on()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_an_answer_that_nobody_takes_is_given_up(run: Callable[[Awaitable[None]], None]) -> None:
    """It fits into buffers, so that no handler waits for the caller any more."""

    async def respond(request: Any, _error: object = None) -> Any:
        request.transport.set_write_buffer_limits(1 << 30)
        request.transport.write(bytes(1 << 26))
        raise RuntimeError("the end")

    async def scene() -> None:
        listener = Listener(
            "127.0.0.1:0",
            respond=respond,
            refuse=respond,
            limits=LimitsConfig(body_timeout=0.1),
            tag=TAG,
            logger=logging.getLogger("nobody"),
        )
        await listener.open()
        port = int(listener.address.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(request_head())
        async with asyncio.timeout(5):
            while not listener.connections:  # noqa: ASYNC110  # the listener tells nobody
                await asyncio.sleep(0.005)
            while listener.connections:  # noqa: ASYNC110  # the listener tells nobody
                await asyncio.sleep(0.005)
        writer.close()
        await listener.close()

    run(scene())


# -- pipelines ------------------------------------------------------------------------------------


async def test_a_long_pipeline_is_answered_in_order() -> None:
    async with one_api() as (proxy, _), connected(proxy) as (reader, writer):
        targets = [f"/{number}".encode() for number in range(100)]
        writer.write(b"".join(request_head(target=target.decode()) for target in targets))
        answers = [(await read_answer(reader)).body for _ in targets]

    assert answers == targets


async def test_a_pipeline_is_not_read_far_ahead() -> None:
    """Else a caller who does not wait for answers could fill our memory."""
    go = asyncio.Event()

    async def script(visit: Visit, head: bytes) -> None:
        await go.wait()
        await visit.say(ok(head.split(b" ")[1]))

    async with stage(script) as proxy, connected(proxy) as (reader, writer):
        writer.write(request_head(extra="X: " + "x" * 1000 + "\r\n") * 20_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.5)
        [connection] = proxy.app.inbound.listeners[0]._context.connections
        assert connection._unread <= BACKLOG_MOST + BODY_MOST
        go.set()
        for _ in range(100):
            assert (await read_answer(reader)).status == 200
        assert connection._unread <= BACKLOG_MOST + BODY_MOST


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("linger", [None, struct.pack("ii", 1, 0)], ids=["end", "reset"])
def test_a_caller_that_leaves_is_noticed_while_its_pipeline_is_not_read(
    run: Callable[[Awaitable[None]], None], linger: bytes | None
) -> None:
    """An event loop sees neither the end nor the reset of a connection that it does not read."""

    async def scene() -> None:
        reached, ended = asyncio.Event(), asyncio.Event()

        async def script(visit: Visit, _head: bytes) -> None:
            reached.set()
            await visit.reader.read()
            ended.set()

        async with stage(script) as proxy, connected(proxy) as (_, writer):
            writer.write(request_head() + request_head(extra="X: " + "x" * 1000 + "\r\n") * 100)
            await reached.wait()
            [connection] = proxy.app.inbound.listeners[0]._context.connections
            while not connection._is_paused:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.005)
            if linger is not None:
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()
            async with asyncio.timeout(1):
                await ended.wait()

            [line] = proxy.log("request.done")
            assert (line["status"], line["code"]) == (499, "caller-gone")

    run(scene())


async def test_a_body_that_nobody_reads_is_not_received_far_ahead() -> None:
    async def script(_visit: Visit, _head: bytes) -> None:
        await asyncio.Event().wait()

    async with stage(script) as proxy, connected(proxy) as (_, writer):
        writer.write(request_head("POST", extra="Content-Length: 99999999\r\n") + bytes(1 << 25))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.5)
        [connection] = proxy.app.inbound.listeners[0]._context.connections
        assert connection._unread <= BACKLOG_MOST + BODY_MOST


async def test_a_caller_that_takes_a_byte_from_time_to_time_is_given_up() -> None:
    """Each would begin a new time limit, and the answer would hold its place for ever."""

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(bytes(1 << 26)))

    loop = asyncio.get_running_loop()
    async with stage(script, limits=LimitsConfig(body_timeout=0.3)) as proxy:
        with socket.socket() as raw:
            raw.setblocking(False)
            await loop.sock_connect(raw, ("127.0.0.1", proxy.port))
            await loop.sock_sendall(raw, request_head())
            async with asyncio.timeout(10):
                while not proxy.log("request.done"):
                    await loop.sock_recv(raw, 1)
                    await asyncio.sleep(0.01)

    assert proxy.log("request.done")[0]["code"] == "request-timeout"
