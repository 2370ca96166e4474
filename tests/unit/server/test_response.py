"""What a caller sees of an answer, byte for byte, and of one that breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.errors import CallerGoneError
from icr_proxy.server.response import ResponseWriter
from tests.support.app_fixture import (
    RawAnswer,
    Visit,
    call,
    config_for,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)

Run = Callable[[Awaitable[None]], None]
on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def through(answer: bytes, request: bytes | None = None) -> RawAnswer:
    """Let the API say this, then hang up."""

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(answer)
        visit.writer.close()

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        return await call(proxy.port, request or request_head())


def added(answer: RawAnswer) -> list[tuple[bytes, bytes]]:
    """Give the headers but for the two that the proxy adds, which must be there once."""
    ours = (b"Cache-Control", b"X-Request-Id")
    assert [name for name, _ in answer.headers if name in ours] == list(ours)
    return [header for header in answer.headers if header[0] not in ours]


def old(request: bytes, *, keep_alive: bool = False) -> bytes:
    """Make it a request of HTTP/1.0."""
    extra = b"Connection: keep-alive\r\n" if keep_alive else b""
    return request.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n" + extra)


# -- the head -------------------------------------------------------------------------------------


async def test_nothing_is_invented_and_everything_is_kept() -> None:
    lines = (
        b"X-MULTI: 1\r\nx-multi: 2\r\nSet-Cookie: a=1; Path=/\r\nX-Latin: \xe9\xff\r\n"
        b"SET-COOKIE: b=2\r\nX-Empty: \r\nX-Multi: 1\r\nServer: nginx\r\n"
    )

    answer = await through(b"HTTP/1.1 299 Gr\xfc\xdfe \r\n" + lines + b"Content-Length: 0\r\n\r\n")

    assert (answer.status, answer.reason.rstrip()) == (299, b"Gr\xfc\xdfe")
    assert added(answer) == [
        *((n, v) for n, _, v in (x.partition(b": ") for x in lines[:-2].split(b"\r\n"))),
        (b"Content-Length", b"0"),
    ]


@pytest.mark.parametrize("lines", [b"", b"X-Request-Id:\r\n", b"x-request-id: \t\r\n" * 2])
async def test_an_empty_request_id_is_none(lines: bytes) -> None:
    """A client that takes the first of two lines would have no ID."""
    answer = await through(b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\n\r\n" % lines)

    (found,) = [value for name, value in answer.headers if name.lower() == b"x-request-id"]
    assert found


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"302 Found\r\nLocation: https://api.example/x", id="redirect"),
        pytest.param(b"200 OK\r\nContent-Encoding: gzip", id="compressed"),
        pytest.param(b"200 OK\r\nContent-Encoding: br", id="compressed otherwise"),
        pytest.param(b"500 Oops\r\nX: y", id="error"),
        pytest.param(b"418 \r\nX: y", id="no reason"),
    ],
)
async def test_an_answer_is_passed_on_and_not_acted_on(head: bytes) -> None:
    raw = b"\x1f\x8b\x08 not really gzip \xff\x00"

    answer = await through(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(raw), raw))

    assert answer.body == raw
    assert (b"%d %b" % (answer.status, answer.reason)) == head.split(b"\r\n")[0]
    assert answer.values(b"X-ICR-Proxy-Error") == []


async def test_the_mark_of_a_refusal_cannot_come_from_the_api() -> None:
    answer = await through(ok(headers=b"X-ICR-Proxy-Error: policy-denied\r\n"))

    assert answer.values(b"X-ICR-Proxy-Error") == []


# -- framing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "framing"),
    [
        pytest.param(ok(b"hello"), (b"Content-Length", b"5"), id="length"),
        pytest.param(
            CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n",
            (b"Transfer-Encoding", b"chunked"),
            id="chunked",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n\r\nhello", (b"Transfer-Encoding", b"chunked"), id="until close"
        ),
    ],
)
async def test_a_body_comes_with_exactly_one_framing(
    said: bytes, framing: tuple[bytes, bytes]
) -> None:
    answer = await through(said)

    assert answer.body == b"hello"
    assert added(answer) == [framing]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="204"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", id="304"),
    ],
)
async def test_an_answer_without_a_body_gets_no_framing(said: bytes) -> None:
    answer = await through(said)

    assert answer.body == b""
    assert answer.values(b"Transfer-Encoding") == answer.values(b"Content-Length") == []


async def test_a_head_request_gets_the_length_and_no_body() -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"

    answer = await through(said, request_head("HEAD"))

    assert answer.values(b"Content-Length") == [b"1234"]


async def test_a_refused_head_request_gets_no_body_and_the_next_answer_is_in_order() -> None:
    async with scripted_upstream(plainly) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head("HEAD", tag=None) + request_head())
        refused = await read_answer(reader, head_only=True)
        answer = await read_answer(reader)
        writer.close()

    assert refused.values(b"X-ICR-Proxy-Error") == [b"installation-required"]
    assert (answer.status, answer.body) == (200, b"{}")


@pytest.mark.parametrize(
    ("said", "keep_alive", "connection"),
    [
        pytest.param(ok(b"hello"), True, [b"keep-alive"], id="length, kept"),
        pytest.param(ok(b"hello"), False, [b"close"], id="length, closed"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", True, [b"close"], id="chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello", True, [b"close"], id="until close"),
    ],
)
async def test_a_caller_of_http_1_0_gets_what_it_understands(
    said: bytes, connection: list[bytes], *, keep_alive: bool
) -> None:
    answer = await through(said, old(request_head(), keep_alive=keep_alive))

    assert answer.body == b"hello"
    assert answer.values(b"Transfer-Encoding") == []
    assert answer.values(b"Connection") == connection


async def test_a_caller_that_asks_for_the_end_of_the_connection_gets_it() -> None:
    answer = await through(ok(), request_head(extra="Connection: close\r\n"))

    assert answer.values(b"Connection") == [b"close"]


async def plainly(visit: Visit, _head: bytes) -> None:
    await visit.say(ok())


async def test_a_connection_serves_many_requests() -> None:
    async with scripted_upstream(plainly) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        for _ in range(5):
            writer.write(request_head())
            assert (await read_answer(reader)).body == b"{}"
        writer.close()

        assert proxy.metric("caller_connects_total", result="accepted") == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def script(visit: Visit, head: bytes) -> None:
        path = head.split(b" ")[1]
        if path == b"/0":
            await asyncio.sleep(0.05)  # time for the others to overtake, if they could
        await visit.say(ok(path))

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"".join(request_head(target=f"/{number}") for number in range(40)))
        answers = [await read_answer(reader) for _ in range(40)]
        writer.close()

    assert [answer.body for answer in answers] == [b"/%d" % number for number in range(40)]


# -- Expect: 100-continue -------------------------------------------------------------------------

WAITING = "Expect: 100-continue\r\nContent-Length: 5\r\n"


async def test_the_go_ahead_comes_when_the_api_takes_the_body() -> None:
    async def script(visit: Visit, head: bytes) -> None:
        assert b"expect" not in head.lower()
        await visit.say(ok(await visit.reader.readexactly(5)))

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head("POST", extra=WAITING))

        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        answer = await read_answer(reader)
        assert answer.body == b"hello"
        assert answer.values(b"Connection") == []
        writer.close()


async def test_a_refused_request_gets_no_go_ahead_and_is_told_that_the_connection_ends() -> None:
    """Its next request would otherwise be taken for the body (RFC 9110, 10.1.1)."""
    async with scripted_upstream(plainly) as api, running(config_for(api.url)) as proxy:
        answer = await call(proxy.port, request_head("POST", tag=None, extra=WAITING))

        assert answer.problem["code"] == "installation-required"
        assert answer.values(b"Connection") == [b"close"]
        assert api.visits == 0


async def test_an_api_that_answers_without_the_body_ends_the_exchange() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        await visit.reader.read()

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head("POST", extra="Content-Length: 5\r\n"))
        answer = await read_answer(reader)
        writer.close()

    assert (answer.status, answer.body) == (403, b"no")
    assert answer.values(b"Connection") == [b"close"]


# -- breaking off ---------------------------------------------------------------------------------


async def cut(said: bytes, request: bytes) -> tuple[bytes, bool]:
    """Give what the caller got, and whether its connection was reset."""

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(said)
        await seen.wait()
        visit.reset()

    seen = asyncio.Event()
    got = b""
    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request)
        try:
            async with asyncio.timeout(5):
                got = await reader.readuntil(b"hello")
                seen.set()
                got += await reader.read()
        except ConnectionError:
            return got, True
        finally:
            writer.close()
    return got, False


@on_both_loops
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhello", id="length"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", id="chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello", id="until close"),
    ],
)
def test_a_short_body_never_looks_complete(run: Run, said: bytes, version: str) -> None:
    """A 200 was promised and cannot be taken back, so the connection must tell (style.md, 21)."""

    async def scene() -> None:
        request = request_head() if version == "1.1" else old(request_head())
        got, was_reset = await cut(said, request)

        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not got.endswith(b"0\r\n\r\n")
        assert was_reset

    run(scene())


# -- back-pressure --------------------------------------------------------------------------------


@on_both_loops
def test_a_slow_caller_stops_the_api_and_still_gets_everything(run: Run) -> None:
    size, piece = 64 * 1024 * 1024, bytes(65536)
    written = 0

    async def script(visit: Visit, _head: bytes) -> None:
        nonlocal written
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        begun.set()
        while written < size:
            await visit.say(piece)
            written += len(piece)

    async def scene() -> None:
        async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request_head())
            async with asyncio.timeout(30):
                await begun.wait()
                before = -1
                while before != written:  # until nothing moves any more
                    before = written
                    await asyncio.sleep(0.1)
                assert written < size / 2

                await reader.readuntil(b"\r\n\r\n")
                got = 0
                while got < size:
                    got += len(await reader.read(65536))
            writer.close()

    begun = asyncio.Event()
    run(scene())


@on_both_loops
def test_a_caller_that_stops_reading_is_cut_off(run: Run) -> None:
    ended = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                await visit.say(bytes(65536))
        finally:
            ended.set()

    async def scene() -> None:
        ended.clear()
        async with scripted_upstream(script) as api:
            limits = LimitsConfig(body_timeout=0.1)
            async with running(config_for(api.url, limits=limits)) as proxy:
                _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # it can read as well
                writer.write(request_head())
                async with asyncio.timeout(10):
                    await ended.wait()
                    await proxy.app.inbound.in_flight.until_idle()

                assert proxy.log("request.done")[0]["code"] == "request-timeout"
                assert proxy.app.outbound.pool.active == 0
                writer.close()

    run(scene())


CHUNKED_HEAD = request_head("POST", extra="Transfer-Encoding: chunked\r\n")


@pytest.mark.parametrize(
    ("first", "status"),
    [
        pytest.param(CHUNKED_HEAD + b"0\r\n\r\n", 200, id="chunks"),
        pytest.param(
            CHUNKED_HEAD + b"0\r\nX-ICR-Installation-Id: inst-2\r\n\r\n", 200, id="a tag as trailer"
        ),
        pytest.param(
            request_head("CONNECT", "/", extra="Content-Length: 40\r\n"), 501, id="CONNECT and more"
        ),
        pytest.param(
            request_head().replace(b"HTTP/1.1", b"HTTP/2.0"), 400, id="of another version"
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("together", [True, False], ids=["one packet", "two packets"])
async def test_nothing_follows_where_the_end_of_a_request_is_in_doubt(
    first: bytes, status: int, *, together: bool
) -> None:
    """aiohttp's parser makes the last trailer the first header of the next request."""

    async def script(visit: Visit, head: bytes) -> None:
        if b"Transfer-Encoding: chunked" in head:
            await visit.reader.readuntil(b"0\r\n\r\n")
        await visit.say(ok())

    following = request_head(target="/following", tag=None, extra="Connection: close\r\n")
    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(first + following if together else first)
        async with asyncio.timeout(5):
            answer = await read_answer(reader)
            if not together:
                writer.write(following)
            rest = await reader.read()
        writer.close()

        assert answer.status == status
        assert b"HTTP/1.1 200" not in rest
        assert len(api.heads) == (status == 200)


# -- a caller that is gone ------------------------------------------------------------------------


class Gone:
    """A request whose caller has left, at the moment at which a test needs it."""

    method = "GET"
    version = (1, 1)
    keep_alive = True
    is_unfinished = False
    transport: asyncio.Transport | None = None

    def __init__(self, transport: Any = None) -> None:
        self.transport = transport
        self.protocol = self
        self.writing_paused = True

    async def drain(self) -> None:
        raise ConnectionResetError


class Sink:
    """A transport that takes everything."""

    def __init__(self) -> None:
        self.data = b""
        self.aborted = False

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.data += data

    def get_extra_info(self, _name: str) -> None:
        return None

    def abort(self) -> None:
        self.aborted = True


def answer_to(request: Any) -> ResponseWriter:
    answer = ResponseWriter(request, timeout=1, closing=lambda: False)
    answer.begin(status=200, reason=b"OK", headers=[])
    return answer


async def test_nothing_is_written_to_a_caller_that_left() -> None:
    answer = answer_to(Gone())

    with pytest.raises(CallerGoneError):
        await answer.write(b"x")
    answer.send_continue()
    answer.abort()

    assert not answer.started


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda answer: answer.write(b"x"), id="a piece"),
        pytest.param(lambda answer: answer.flush_head(), id="the head"),
        pytest.param(lambda answer: answer.end(), id="the end"),
    ],
)
async def test_a_caller_that_leaves_while_we_wait_for_it_is_gone(
    step: Callable[[ResponseWriter], Awaitable[None]],
) -> None:
    with pytest.raises(CallerGoneError):
        await step(answer_to(Gone(Sink())))


async def test_what_is_no_socket_is_aborted_all_the_same() -> None:
    sink = Sink()

    answer_to(Gone(sink)).abort()

    assert sink.aborted


async def test_the_head_goes_out_once_and_no_go_ahead_follows_it() -> None:
    sink = Sink()
    request = Gone(sink)
    request.writing_paused = False
    answer = answer_to(request)

    await answer.flush_head()
    await answer.flush_head()
    answer.send_continue()

    assert sink.data == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
