"""One exchange over a real socket, with an API that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from icr_proxy.config.models import TimeoutsConfig
from icr_proxy.errors import (
    CallerGoneError,
    UpstreamBrokenError,
    UpstreamError,
    UpstreamTimeoutError,
)
from icr_proxy.upstream.connection import RECEIVED_MOST, Connection, DeadlineTimer, encode_head
from icr_proxy.upstream.response import HIGH_WATER
from tests.support.app_fixture import (
    Parts,
    Visit,
    ok,
    pool_to,
    scripted_upstream,
    upstream_request,
    whole,
)

Script = Callable[[Visit, bytes], Awaitable[None]]
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MEBIBYTE = 1024 * 1024


class Written(bytes):
    """Header lines that are written already."""

    def write(self) -> bytes:
        return self


def saying(*answers: bytes) -> Script:
    """Follow the script: one answer for each request, then hang up."""
    left = list(answers)

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(left.pop(0))
        if not left:
            visit.writer.close()

    return script


async def gone(visit: Visit) -> None:
    """Wait until the other side ends the connection, reading whatever comes."""
    try:
        while await visit.reader.read(65536):
            pass
    except ConnectionError:
        pass


# -- what goes out --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "length", "framing", "sent"),
    [
        pytest.param(None, None, b"", b"", id="no body"),
        pytest.param(None, 0, b"Content-Length: 0\r\n", b"", id="empty body"),
        pytest.param((b"he", b"llo"), 5, b"Content-Length: 5\r\n", b"hello", id="known length"),
        pytest.param(
            (b"he", b"llo"),
            None,
            b"Transfer-Encoding: chunked\r\n",
            b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            id="unknown length",
        ),
    ],
)
async def test_a_request_is_written_with_our_own_framing(
    body: tuple[bytes, ...] | None, length: int | None, framing: bytes, sent: bytes
) -> None:
    got = b""

    async def script(visit: Visit, _head: bytes) -> None:
        nonlocal got
        got = await visit.reader.readexactly(len(sent))
        await visit.say(ok())

    request = upstream_request("POST", body=Parts(*body) if body else None, length=length)
    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            assert await whole(await pool.send(request)) == b"{}"

    assert api.heads == [b"POST /x HTTP/1.1\r\nHost: api\r\n" + framing + b"\r\n"]
    assert got == sent


@pytest.mark.parametrize(
    ("block", "headers", "sent"),
    [
        pytest.param(b"", [], b"", id="none"),
        pytest.param(b"Host: a\r\nVia: b\r\n", [], b"Host: a\r\nVia: b\r\n", id="a block"),
        pytest.param(
            b"Host: a\r\n",
            [(b"X-Y", b"\xff")],
            b"Host: a\r\nX-Y: \xff\r\n",
            id="a block, then headers",
        ),
    ],
)
def test_lines_that_are_encoded_come_before_the_others(
    block: bytes, headers: list[tuple[bytes, bytes]], sent: bytes
) -> None:
    request = upstream_request()
    request.lines, request.headers = Written(block), headers

    assert encode_head(request) == b"GET /x HTTP/1.1\r\n" + sent + b"\r\n"
    assert b"Host" not in repr(request).encode(), "the credential is among them"


# -- answers that are cut off ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-", id="half a head"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="only an interim answer"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", id="short body"),
        pytest.param(CHUNKED_HEAD + b"5\r\nhello\r\n", id="no last chunk"),
        pytest.param(CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n", id="half a last chunk"),
        pytest.param(CHUNKED_HEAD + b"9\r\nhello", id="short chunk"),
        pytest.param(CHUNKED_HEAD + b"5\r\nhelloXX", id="malformed chunk"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
    ],
)
async def test_an_answer_that_is_cut_off_is_broken(answer: bytes) -> None:
    async with scripted_upstream(saying(answer)) as api:
        with pool_to(api.url) as pool, pytest.raises(UpstreamBrokenError) as caught:
            await whole(await pool.send(upstream_request()))

    assert caught.value.sent
    assert caught.value.answered == bool(answer)
    assert not caught.value.reused


async def test_what_came_before_the_cut_can_be_read() -> None:
    async with scripted_upstream(saying(CHUNKED_HEAD + b"5\r\nhello\r\n")) as api:
        with pool_to(api.url) as pool:
            response = await pool.send(upstream_request())

            assert await response.read() == b"hello"
            with pytest.raises(UpstreamBrokenError):
                await response.read()
            response.close()


async def test_a_reset_in_a_body_without_length_is_not_its_end() -> None:
    reading = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await reading.wait()
        visit.reset()

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            response = await pool.send(upstream_request())
            assert await response.read() == b"hello"
            reading.set()

            with pytest.raises(UpstreamBrokenError):
                await whole(response)


async def test_a_body_without_length_ends_with_the_connection() -> None:
    async with scripted_upstream(saying(b"HTTP/1.1 200 OK\r\n\r\nhello")) as api:
        with pool_to(api.url) as pool:
            assert await whole(await pool.send(upstream_request())) == b"hello"
            assert pool.idle == 0


async def test_closing_the_pool_does_not_end_a_body_without_length() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await gone(visit)

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            response = await pool.send(upstream_request())
            assert await response.read() == b"hello"

            pool.close()

            with pytest.raises(UpstreamBrokenError):
                await response.read()
            response.close()


async def test_a_connection_that_is_gone_sends_nothing() -> None:
    connection = Connection(
        asyncio.get_running_loop(),
        timeouts=TimeoutsConfig(),
        buffer=memoryview(bytearray(16)),
        released=lambda _: None,
        closed=lambda _, _reason: None,
    )

    with pytest.raises(UpstreamBrokenError) as caught:
        connection.begin(upstream_request())

    assert not caught.value.sent
    assert not connection.is_quiet
    connection.buffer_updated(4)  # as over TLS, where some may be on its way
    assert not connection.is_open


# -- time-outs ------------------------------------------------------------------------------------


async def test_a_head_that_does_not_come_is_a_timeout() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await gone(visit)

    async with scripted_upstream(script) as api:
        with pool_to(api.url, first_byte=0.02) as pool, pytest.raises(UpstreamTimeoutError) as late:
            await pool.send(upstream_request())

    assert (late.value.sent, late.value.answered, late.value.reused) == (True, False, False)


async def test_each_request_of_a_connection_has_the_whole_time() -> None:
    """One timer serves them all."""

    async def script(visit: Visit, _head: bytes) -> None:
        if len(api.heads) == 1:
            await asyncio.sleep(0.05)
            await visit.say(ok())
        else:
            await gone(visit)

    now = asyncio.get_running_loop().time
    async with scripted_upstream(script) as api:
        with pool_to(api.url, first_byte=0.1) as pool:
            await whole(await pool.send(upstream_request()))
            began = now()
            with pytest.raises(UpstreamTimeoutError) as late:
                await pool.send(upstream_request())

    assert late.value.reused
    assert now() - began >= 0.098


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_that_is_closed_leaves_no_timer_behind(
    run: Callable[[Awaitable[None]], None],
) -> None:
    """One for each that was closed would wait its minute."""

    def alarms() -> int:
        gc.collect()
        return sum(isinstance(each, DeadlineTimer) for each in gc.get_objects())

    async def scene() -> None:
        async with scripted_upstream(saying(ok(), ok())) as api:
            with pool_to(api.url) as pool:
                await whole(await pool.send(upstream_request()))
                pool.close()
                await asyncio.sleep(0.01)  # what was aborted is closed in the next turn

                assert alarms() == before

    before = alarms()
    run(scene())


@pytest.mark.parametrize("when", ["before the body", "after the body"])
async def test_the_answer_to_an_upload_comes_behind_interim_ones(when: str) -> None:
    interim = b"HTTP/1.1 100 Continue\r\nConnection: close\r\nContent-Length: 9\r\n\r\n"

    async def script(visit: Visit, _head: bytes) -> None:
        if when == "before the body":
            await visit.say(interim * 2)
        await visit.reader.readexactly(3)
        if when == "after the body":
            await visit.say(interim * 2)
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            for _ in range(2):
                request = upstream_request("POST", body=Parts(b"abc"), length=3)
                assert await whole(await pool.send(request)) == b"done"

    assert api.visits == 1


class AnsweredEarly:
    """A body before or in the middle of which the API answers and resets the connection."""

    def __init__(self, listening: socket.socket, answer: bytes, *, before: int) -> None:
        self._listening = listening
        self._answer = answer
        self._before = before
        self._pieces = 0

    async def read(self) -> bytes:
        self._pieces += 1
        if self._pieces == self._before:
            accepted, _ = self._listening.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.sendall(self._answer)
            accepted.close()  # which resets the connection
        return b"x" * 65536 if self._pieces < 9 else b""


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("length", [8 * 65536, None], ids=["sized", "chunked"])
@pytest.mark.parametrize("before", [1, 2], ids=["before-the-body", "in-the-body"])
def test_an_early_answer_is_read_though_the_api_resets_the_connection(
    run: Callable[[Awaitable[None]], None], length: int | None, before: int
) -> None:
    """The next write fails, and the event loop would throw away what it had not read."""
    answer = b"HTTP/1.1 413 x\r\nContent-Length: 9\r\n\r\ntoo large"

    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with pool_to(url) as pool:
                body = AnsweredEarly(listening, answer, before=before)
                response = await pool.send(upstream_request("POST", body=body, length=length))
                assert (response.status, await whole(response)) == (413, b"too large")

    run(scene())


async def test_interim_answers_do_not_stop_the_clock() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 102 Processing\r\n\r\n")
        await gone(visit)

    async with scripted_upstream(script) as api:
        with pool_to(api.url, first_byte=0.05) as pool, pytest.raises(UpstreamTimeoutError) as late:
            await pool.send(upstream_request())

    assert late.value.answered


async def test_a_body_that_stops_coming_is_a_timeout() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        await gone(visit)

    async with scripted_upstream(script) as api:
        with pool_to(api.url, idle=0.05) as pool:
            response = await pool.send(upstream_request())
            with pytest.raises(UpstreamTimeoutError):
                await whole(response)


async def test_an_api_that_stops_taking_the_body_is_a_timeout() -> None:
    hung_up = asyncio.Event()

    async def script(_visit: Visit, _head: bytes) -> None:
        await hung_up.wait()

    body = Parts(*[bytes(MEBIBYTE)] * 64)
    async with scripted_upstream(script) as api:
        with pool_to(api.url, idle=0.05) as pool, pytest.raises(UpstreamTimeoutError) as late:
            await pool.send(upstream_request("POST", body=body))
        hung_up.set()

    assert late.value.sent
    assert body.taken < 64 * MEBIBYTE


# -- uploads --------------------------------------------------------------------------------------


async def test_an_answer_before_the_body_is_sent_stops_the_upload() -> None:
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    ended = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(refused)
        await gone(visit)
        ended.set()

    body = Parts(b"begin", asyncio.Event(), b"never")
    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            response = await pool.send(upstream_request("POST", body=body))

            assert response.status == 413
            assert await whole(response) == b"no"
            assert pool.idle == 0, "the API still waits for the body"
            async with asyncio.timeout(5):
                await ended.wait()

    assert body.taken == len(b"begin")


@pytest.mark.parametrize(
    "hang_up",
    [
        pytest.param(lambda visit: visit.writer.close(), id="with unread bytes"),
        pytest.param(lambda visit: visit.writer.write_eof(), id="one way"),
        pytest.param(Visit.reset, id="reset"),
    ],
)
async def test_an_early_answer_survives_the_end_of_the_connection(
    hang_up: Callable[[Visit], None],
) -> None:
    """The API answers, does not read the upload, and hangs up."""

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        hang_up(visit)

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            body = Parts(*[bytes(65536)] * 400)
            response = await pool.send(upstream_request("POST", body=body))

            assert response.status == 413
            assert await whole(response) == b"no"


async def test_an_upload_that_fails_on_the_callers_side_breaks_the_connection() -> None:
    ended = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        await gone(visit)
        ended.set()

    body = Parts(b"half", CallerGoneError("left"))
    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            with pytest.raises(CallerGoneError):
                await pool.send(upstream_request("POST", body=body, length=8))
            async with asyncio.timeout(5):
                await ended.wait()

    assert len(api.heads) == 1


async def test_an_upload_that_fails_during_the_answer_fails_the_answer() -> None:
    answered = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(CHUNKED_HEAD + b"5\r\nhello\r\n")
        await gone(visit)

    body = Parts(b"half", answered, CallerGoneError("left"))
    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            response = await pool.send(upstream_request("POST", body=body))
            assert await response.read() == b"hello"
            answered.set()

            with pytest.raises(CallerGoneError):
                await whole(response)


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(CallerGoneError("left"), id="the caller left"),
        pytest.param(UpstreamTimeoutError("drain"), id="the API stopped reading"),
    ],
)
async def test_a_connection_that_still_waits_for_a_body_is_not_reused(failure: Exception) -> None:
    """It would take the next request, another organization's token included, for the rest of it."""
    failing = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(CHUNKED_HEAD + b"5\r\nhello\r\n")
        await failing.wait()
        await asyncio.sleep(0)
        await visit.say(b"0\r\n\r\n")
        await gone(visit)

    body = Parts(b"half", failing, failure)
    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            response = await pool.send(upstream_request("POST", body=body, length=100))
            assert await response.read() == b"hello"
            failing.set()
            with contextlib.suppress(CallerGoneError):
                await whole(response)

            assert pool.idle == 0


async def test_an_answer_and_an_upload_can_overlap() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(CHUNKED_HEAD + b"1\r\n1\r\n")
        assert await visit.reader.readexactly(4) == b"late"
        await visit.say(b"1\r\n2\r\n0\r\n\r\n")

    seen = asyncio.Event()
    body = Parts(seen, b"late")
    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            response = await pool.send(upstream_request("POST", body=body, length=4))
            assert await response.read() == b"1"
            seen.set()

            assert await whole(response) == b"2"


# -- back-pressure --------------------------------------------------------------------------------


async def test_a_slow_reader_stops_the_api() -> None:
    size = 64 * MEBIBYTE
    written = 0

    async def script(visit: Visit, _head: bytes) -> None:
        nonlocal written
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while written < size:
            await visit.say(bytes(65536))
            written += 65536

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            response = await pool.send(upstream_request())
            before = -1
            while before != written:  # until nothing moves any more
                before = written
                await asyncio.sleep(0.1)
            held = len(response.read_nowait())

            assert written < size / 2
            assert held <= HIGH_WATER + RECEIVED_MOST
            assert held + len(await whole(response)) == size


async def test_a_slow_api_stops_the_upload() -> None:
    go = asyncio.Event()
    size = 64 * MEBIBYTE

    async def script(visit: Visit, _head: bytes) -> None:
        await go.wait()
        for _ in range(size // MEBIBYTE):
            await visit.reader.readexactly(MEBIBYTE)
        await visit.say(ok())

    body = Parts(*[bytes(65536)] * (size // 65536))
    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            sending = asyncio.ensure_future(
                pool.send(upstream_request("POST", body=body, length=size))
            )
            before = -1
            while before != body.taken:
                before = body.taken
                await asyncio.sleep(0.1)

            assert body.taken < size / 2
            go.set()
            assert await whole(await sending) == b"{}"


# -- leaving at any moment ------------------------------------------------------------------------


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_random_faults_and_cancellations_lose_nothing(
    run: Callable[[Awaitable[None]], None],
) -> None:
    """Every slot comes back, nobody gets what was meant for another, whatever happens."""
    run(_storm(random.Random(7), rounds=300))


async def _storm(chance: random.Random, *, rounds: int) -> None:
    async def script(visit: Visit, head: bytes) -> None:
        mark = head.partition(b"X-Mark: ")[2].split(b"\r\n")[0]
        answer = ok(mark * 50) if chance.random() < 0.5 else _chunked(mark * 50)
        await _meet(visit, answer, chance)

    async def one(number: int) -> None:
        request = upstream_request(is_write=chance.random() < 0.3)
        mark = b"%06d" % number
        request.headers = [(b"Host", b"api"), (b"X-Mark", mark)]
        try:
            async with asyncio.timeout(chance.choice([0.002, 0.02, 5, 5, 5])):
                response = await pool.send(request)
                if chance.random() < 0.1:
                    response.close()
                    return
                body = await whole(response)
        except (UpstreamError, TimeoutError):
            return
        assert body == mark * 50

    async with scripted_upstream(script) as api:
        with pool_to(api.url, connections=8, idle=1, first_byte=1) as pool:
            for start in range(0, rounds, 20):
                async with asyncio.TaskGroup() as tasks:
                    for number in range(start, start + 20):
                        tasks.create_task(one(number))


async def _meet(visit: Visit, answer: bytes, chance: random.Random) -> None:
    """Answer well, twice, too late, too much, or only in part."""
    cut = chance.randrange(len(answer))
    match chance.choice(["whole", "whole", "cut", "slow", "surplus", "later", "reset"]):
        case "whole":
            await visit.say(answer)
        case "cut":
            await visit.say(answer[:cut])
            visit.writer.close()
        case "slow":
            await visit.say(answer[:cut])
            await asyncio.sleep(0.01)
            await visit.say(answer[cut:])
        case "surplus":
            await visit.say(answer + ok(b"stolen"))
        case "later":
            await visit.say(answer)
            await asyncio.sleep(0)
            await visit.say(ok(b"stolen"))
        case "reset":
            await visit.say(answer[:cut])
            visit.reset()


def _chunked(body: bytes) -> bytes:
    return CHUNKED_HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def test_a_request_does_not_show_what_is_secret_in_it() -> None:
    request = upstream_request()
    request.headers = [(b"Authorization", b"Bearer crs_secret")]
    request.lines = Written(b"Authorization: Bearer crs_secret\r\n")

    assert "crs_" not in repr(request)
