"""A handler gets the bytes as they came, and what they say about the body."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.errors import (
    BadRequestError,
    BodyTooLargeError,
    CallerTimeoutError,
)
from icr_proxy.http1.request_head import HeadRules, read_head
from icr_proxy.server.request import HTTP_1_0, HTTP_1_1, PACE, ClientBody, Request, unreadable
from tests.support.app_fixture import (
    Visit,
    call,
    config_for,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)

RULES = HeadRules(uri=100, headers=200, tag="X-Tag")
NOBODY: Any = None


def request(data: bytes) -> Request:
    return Request(read_head(data, RULES), NOBODY, None)


def test_a_request_holds_what_was_received() -> None:
    found = request(
        b"POST //x? HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: \xff\r\nx: 2\r\n\r\n"
    )

    assert (found.method, found.raw_path, found.version) == ("POST", "//x?", HTTP_1_1)
    assert found.raw_headers == (
        (b"Host", b"a"), (b"Transfer-Encoding", b"chunked"), (b"X", b"\xff"), (b"x", b"2")
    )  # fmt: skip
    assert found.first(b"x") == "\udcff"
    assert found.first(b"y") == ""
    assert (found.body_exists, found.content_length) == (True, None)
    assert found.keep_alive
    assert not found.expects
    assert found.broken is None


def test_a_length_of_nothing_is_a_length_and_no_body() -> None:
    """It goes on to the API like that: some refuse a POST that says nothing about its length."""
    said = request(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nEXPECT: x\r\n\r\n")
    unsaid = request(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert (said.body_exists, said.content_length, said.expects) == (False, 0, True)
    assert (unsaid.body_exists, unsaid.content_length, unsaid.expects) == (False, None, False)


def test_old_callers_are_known_as_such() -> None:
    found = request(b"GET / HTTP/1.0\r\n\r\n")

    assert (found.version, found.keep_alive) == (HTTP_1_0, False)


def test_what_is_no_request_has_its_turn_as_well() -> None:
    error = BadRequestError("no")
    found = unreadable(NOBODY, error)

    assert (found.broken, found.method, found.raw_headers) == (error, "UNKNOWN", ())
    assert (found.keep_alive, found.body_exists, found.content_length) == (False, False, None)


class FakeStream:
    """Gives what it was told to give; an event makes it wait."""

    def __init__(self, *parts: bytes | Exception | asyncio.Event) -> None:
        self._parts = list(parts)

    async def read(self) -> bytes:
        if not self._parts:
            return b""
        part = self._parts[0]
        if isinstance(part, asyncio.Event):
            await part.wait()
        self._parts.pop(0)
        if isinstance(part, Exception):
            raise part
        return await self.read() if isinstance(part, asyncio.Event) else part


def body(*parts: bytes | Exception | asyncio.Event, **limits: Any) -> ClientBody:
    return ClientBody(FakeStream(*parts), limits=LimitsConfig(**limits), first_read=lambda: None)


async def drain(source: ClientBody) -> bytes:
    whole = b""
    while data := await source.read():
        whole += data
    return whole


# -- read ahead -----------------------------------------------------------------------------------


@pytest.mark.parametrize("replay_buffer", [0, 4, 100])
@pytest.mark.parametrize(
    ("parts", "ahead"),
    [
        pytest.param((), (b"", True), id="empty"),
        pytest.param((b"he", b"ll"), (b"hell", True), id="just all"),
        pytest.param((b"he", b"llo"), (b"hell", False), id="one byte more"),
        pytest.param((b"hello", b" there"), (b"hell", False), id="much more"),
    ],
)
async def test_what_was_read_ahead_is_read_again(
    parts: tuple[bytes, ...], ahead: tuple[bytes, bool], replay_buffer: int
) -> None:
    source = body(*parts, replay_buffer=replay_buffer)

    assert await source.read_ahead(4) == ahead
    assert await drain(source) == b"".join(parts)
    assert source.can_rewind is (source.size <= replay_buffer)


# -- read and read again --------------------------------------------------------------------------


async def test_a_body_is_read_to_its_end() -> None:
    source = body(b"he", b"llo")

    assert await drain(source) == b"hello"
    assert await source.read() == b""
    assert source.size == 5


@pytest.mark.parametrize("read_before", [0, 1, 2, 3])
async def test_a_small_body_can_be_read_again_at_any_point(read_before: int) -> None:
    source = body(b"a", b"b", b"c")
    for _ in range(read_before):
        await source.read()

    source.rewind()

    assert await drain(source) == b"abc"
    assert source.size == 3


async def test_a_body_can_be_rewound_more_than_once() -> None:
    source = body(b"a", b"b")
    await source.read()
    source.rewind()
    await drain(source)
    source.rewind()

    assert await drain(source) == b"ab"


@pytest.mark.parametrize(("size", "fits"), [(10, True), (11, False)])
async def test_what_is_longer_than_the_replay_buffer_is_not_kept(size: int, *, fits: bool) -> None:
    source = body(b"x" * 6, b"x" * (size - 6), replay_buffer=10)
    await drain(source)

    assert source.can_rewind is fits
    if not fits:
        with pytest.raises(RuntimeError):
            source.rewind()


async def test_a_cancelled_reader_loses_nothing() -> None:
    """The upload is cancelled when the API refuses the token, and begins anew with another."""
    come = asyncio.Event()
    source = body(b"a", come, b"b")
    await source.read()
    reading = asyncio.ensure_future(source.read())
    await asyncio.sleep(0)
    reading.cancel()

    source.rewind()
    come.set()

    assert await drain(source) == b"ab"


async def test_the_go_ahead_is_given_once_and_only_when_the_body_is_wanted() -> None:
    given: list[str] = []
    source = ClientBody(
        FakeStream(b"a", b"b"), limits=LimitsConfig(), first_read=lambda: given.append("go")
    )
    assert given == []

    await drain(source)
    source.rewind()
    await drain(source)

    assert given == ["go"]


# -- what can go wrong ----------------------------------------------------------------------------


async def test_a_caller_that_stops_sending_is_a_timeout() -> None:
    with pytest.raises(CallerTimeoutError):
        await drain(body(b"a", asyncio.Event(), body_timeout=0.01))


@pytest.mark.parametrize(("size", "passes"), [(10, True), (11, False)])
async def test_a_body_is_no_longer_than_the_limit(size: int, *, passes: bool) -> None:
    source = body(b"x" * 5, b"x" * (size - 5), body=10)

    if passes:
        assert len(await drain(source)) == size
    else:
        with pytest.raises(BodyTooLargeError):
            await drain(source)


# -- on the wire ----------------------------------------------------------------------------------


async def echoing(visit: Visit, head: bytes) -> None:
    """Answer with the body, whatever its framing."""
    if b"Transfer-Encoding: chunked" in head:
        got = await visit.reader.readuntil(b"0\r\n\r\n")
    else:
        length = head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]
        got = await visit.reader.readexactly(int(length or 0))
    await visit.say(ok(got))


@pytest.mark.parametrize(
    ("framing", "sent", "arrives"),
    [
        pytest.param("", b"", b"", id="no body"),
        pytest.param("Content-Length: 0\r\n", b"", b"", id="empty body"),
        pytest.param("Content-Length: 5\r\n", b"hello", b"hello", id="length"),
        pytest.param(
            "Transfer-Encoding: chunked\r\n",
            b"5;ext=1\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            id="chunked, without extensions and trailers",
        ),
        pytest.param(
            "Transfer-Encoding: Chunked\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            id="with an offer of h2c",
        ),
    ],
)
async def test_a_body_arrives_with_the_framing_it_had(
    framing: str, sent: bytes, arrives: bytes
) -> None:
    async with scripted_upstream(echoing) as api, running(config_for(api.url)) as proxy:
        answer = await call(proxy.port, request_head("POST", extra=framing) + sent)

        assert answer.body == arrives
        lowered = api.heads[0].lower()
        assert lowered.count(b"content-length") == framing.count("Content-Length")
        assert lowered.count(b"transfer-encoding") == framing.count("Transfer-Encoding")


@pytest.mark.parametrize(
    ("version", "coding", "code"),
    [
        pytest.param("1.1", "gzip, chunked", "not-implemented", id="one that would be lost"),
        pytest.param("1.1", "", "bad-request", id="an empty one"),
        pytest.param("1.0", "chunked", "bad-request", id="chunks in HTTP/1.0"),
    ],
)
async def test_a_transfer_coding_that_others_read_differently_is_refused(
    version: str, coding: str, code: str
) -> None:
    head = request_head("POST", extra=f"Transfer-Encoding: {coding}\r\n")
    head = head.replace(b"HTTP/1.1", b"HTTP/" + version.encode())
    async with scripted_upstream(echoing) as api, running(config_for(api.url)) as proxy:
        answer = await call(proxy.port, head + (b"1\r\nx\r\n0\r\n\r\n" if coding else b""))

    assert answer.problem["code"] == code
    assert answer.values(b"Connection") == [b"close"]
    assert api.visits == 0


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        pytest.param("Content-Length: 100\r\n", b"", id="by its length, unread"),
        pytest.param("Transfer-Encoding: chunked\r\n", b"64\r\n" + bytes(100), id="while it comes"),
    ],
)
async def test_a_body_over_the_limit_is_refused(framing: str, sent: bytes) -> None:
    async def reading(visit: Visit, _head: bytes) -> None:
        await visit.reader.read()

    limits = LimitsConfig(body=99)
    async with (
        scripted_upstream(reading) as api,
        running(config_for(api.url, limits=limits)) as proxy,
    ):
        answer = await call(proxy.port, request_head("POST", extra=framing) + sent)

        assert answer.problem["code"] == "body-too-large"
        assert answer.status == 413
        assert answer.values(b"Connection") == [b"close"]
        assert proxy.app.outbound.pool.active == 0


async def test_a_body_that_comes_too_slowly_is_refused() -> None:
    ended = asyncio.Event()

    async def reading(visit: Visit, _head: bytes) -> None:
        await visit.reader.read()
        ended.set()

    async with scripted_upstream(reading) as api:
        limits = LimitsConfig(body_timeout=0.05)
        async with running(config_for(api.url, limits=limits)) as proxy:
            request = request_head("POST", extra="Content-Length: 9\r\n") + b"half"
            answer = await call(proxy.port, request)

            assert answer.problem["code"] == "request-timeout"
            assert answer.status == 408
            assert answer.values(b"Connection") == [b"close"]
            async with asyncio.timeout(5):
                await ended.wait()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"zz\r\n", id="at once"),
        pytest.param(b"5\r\nhello\r\nzz\r\n", id="after a good chunk"),
        pytest.param(b"5\r\nhelloXX", id="no line break after a chunk"),
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["one packet", "two packets"])
async def test_a_malformed_body_breaks_the_upload_and_is_told(
    sent: bytes, *, together: bool
) -> None:
    """aiohttp queues an error and lets the reader of the body wait."""
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def reading(visit: Visit, _head: bytes) -> None:
        begun.set()
        while b"0\r\n\r\n" not in (data := await visit.reader.read(65536)):
            if not data:
                break
        else:
            pytest.fail("the upload looked complete")
        ended.set()

    async with scripted_upstream(reading) as api, running(config_for(api.url)) as proxy:
        head = request_head("POST", extra="Transfer-Encoding: chunked\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        if together:
            writer.write(head + sent)
        else:
            writer.write(head)
            await begun.wait()
            writer.write(sent)
        async with asyncio.timeout(5):
            answer = await read_answer(reader)
            rest = await reader.read()
        writer.close()

        assert answer.problem["code"] == "bad-request"
        assert answer.values(b"Connection") == [b"close"]
        assert rest == b"", "one request, one answer"
        assert proxy.log("library.error") == []
        if begun.is_set():
            async with asyncio.timeout(5):
                await ended.wait()
        assert proxy.app.outbound.pool.active == 0


async def test_a_malformed_chunk_in_the_packet_that_ends_a_good_one_ends_no_body() -> None:
    """The reader was woken by the end of the good one, and took the end of all for a good end."""
    half, uploaded = asyncio.Event(), b""

    async def reading(visit: Visit, _head: bytes) -> None:
        nonlocal uploaded
        uploaded = await visit.reader.readexactly(len(b"5\r\nhello\r\n"))
        half.set()
        uploaded += await visit.reader.read()

    async with scripted_upstream(reading) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        head = request_head("POST", extra="Transfer-Encoding: chunked\r\n")
        writer.write(head + b"5\r\nhello\r")
        async with asyncio.timeout(5):
            await half.wait()
            writer.write(b"\n+")
            answer = await read_answer(reader)
        writer.close()

    assert answer.problem["code"] == "bad-request"
    assert uploaded == b"5\r\nhello\r\n"


async def test_a_malformed_rest_of_a_refused_body_is_no_error_of_ours() -> None:
    """Whoever sends it would fill the log."""
    async with scripted_upstream(echoing) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head("POST", tag=None, extra="Transfer-Encoding: chunked\r\n"))
        async with asyncio.timeout(5):
            answer = await read_answer(reader)
            writer.write(b"zz\r\n")
            rest = await reader.read()
        writer.close()

    assert answer.problem["code"] == "installation-required"
    assert rest == b""
    assert proxy.log("library.error") == []


async def test_a_caller_that_sends_a_byte_from_time_to_time_is_not_waited_for() -> None:
    """Each would begin a new time limit, and the request would hold its place for ever."""

    class Drop:
        async def read(self) -> bytes:
            await asyncio.sleep(0.02)
            return b"x"

    body = ClientBody(Drop(), limits=LimitsConfig(body_timeout=0.2), first_read=lambda: None)

    async def read_all() -> None:
        while await body.read():
            pass

    with pytest.raises(CallerTimeoutError):
        await asyncio.wait_for(read_all(), 5)
    assert body.size < PACE


async def test_a_caller_that_keeps_its_pace_may_take_its_time() -> None:
    parts = [part for _ in range(30) for part in (bytes(PACE // 2), bytes(PACE // 2))]

    class Steady:
        async def read(self) -> bytes:
            await asyncio.sleep(0.01)
            return parts.pop() if parts else b""

    body = ClientBody(Steady(), limits=LimitsConfig(body_timeout=0.2), first_read=lambda: None)
    while await body.read():
        pass

    assert body.size == 30 * PACE
