"""Bytes in, answers out: no socket, so every cut and every split can be tried."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import dataclass, field

import pytest

from icr_proxy.errors import UpstreamBrokenError, UpstreamTimeoutError
from icr_proxy.upstream.connection import DeadlineTimer
from icr_proxy.upstream.response import HEAD_LIMIT, Http1Response


@dataclass
class FakeSource:
    """A connection that remembers what the answer asked of it."""

    taken: int = 0
    finished: list[Http1Response] = field(default_factory=list)

    def want_more(self) -> None:
        self.taken += 1

    def finish(self, reply: Http1Response) -> None:
        self.finished.append(reply)


def make(
    method: str = "GET", *, source: FakeSource | None = None, idle: float = 5.0
) -> Http1Response:
    loop = asyncio.get_running_loop()
    return Http1Response(
        source=source or FakeSource(),
        alarm=DeadlineTimer(loop),
        loop=loop,
        method=method,
        reused=False,
        idle=idle,
    )


async def head_of(reply: Http1Response) -> None:
    """Wait for the head."""
    reply.allow(1)
    while not reply.head_done:
        await reply.arrival()


async def whole(reply: Http1Response) -> bytes:
    """Read to the end."""
    body = b""
    while data := await reply.read():
        body += data
    return body


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
)
TRAILERS = CHUNKED[:-2] + b"X-Sum: 1\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(LENGTH, id="content-length"),
        pytest.param(CHUNKED, id="chunked"),
        pytest.param(TRAILERS, id="chunked with trailers"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH, id="after 100"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + LENGTH, id="after 103"),
        pytest.param(b"HTTP/1.1 102 x\r\nA: b\r\n\r\n" * 3 + CHUNKED, id="after three 102"),
    ],
)
async def test_an_answer_is_the_same_wherever_it_is_split(answer: bytes) -> None:
    seen = set()
    for cut in range(len(answer) + 1):
        reply = make()
        assert reply.feed(answer[:cut]) or not answer[:cut]
        assert not answer[cut:] or reply.feed(answer[cut:])
        seen.add((reply.status, reply.head.line.reason, await whole(reply), reply.is_clean))

    assert seen == {(200, b"OK", b"hello", True)}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(LENGTH, id="content-length"),
        pytest.param(CHUNKED, id="chunked"),
        pytest.param(TRAILERS, id="chunked with trailers"),
    ],
)
async def test_a_cut_anywhere_is_never_an_end(answer: bytes) -> None:
    for cut in range(len(answer)):
        reply = make()
        reply.feed(answer[:cut])
        reply.end()

        with pytest.raises(UpstreamBrokenError):
            await whole(reply)
        assert not reply.is_clean


async def test_a_body_without_length_ends_with_the_connection() -> None:
    reply = make()
    reply.feed(UNTIL_CLOSE)
    reply.end()

    assert await whole(reply) == b"hello"
    assert not reply.is_clean


async def test_a_body_without_length_is_cut_off_when_there_was_no_goodbye() -> None:
    reply = make()
    reply.feed(UNTIL_CLOSE)
    reply.fail(reply.broken("reset"))

    assert await reply.read() == b"hello"
    with pytest.raises(UpstreamBrokenError):
        await reply.read()


@pytest.mark.parametrize(
    ("method", "head"),
    [
        pytest.param("HEAD", b"200 OK\r\nContent-Length: 5", id="HEAD with length"),
        pytest.param("HEAD", b"200 OK\r\nTransfer-Encoding: chunked", id="HEAD chunked"),
        pytest.param("GET", b"204 No Content\r\nContent-Length: 5", id="204 with length"),
        pytest.param("GET", b"204 No Content", id="204"),
        pytest.param("GET", b"304 Not Modified\r\nContent-Length: 5", id="304 with length"),
        pytest.param("GET", b"200 OK\r\nContent-Length: 0", id="empty"),
    ],
)
async def test_an_answer_without_a_body_ends_with_its_head(method: str, head: bytes) -> None:
    reply = make(method)
    reply.feed(b"HTTP/1.1 " + head + b"\r\n\r\n")

    assert await reply.read() == b""
    assert reply.is_clean


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        pytest.param("GET", LENGTH + b"x", id="a byte"),
        pytest.param("GET", LENGTH + LENGTH, id="a second answer"),
        pytest.param("GET", CHUNKED + LENGTH, id="a second answer after chunks"),
        pytest.param("GET", b"HTTP/1.1 204 x\r\n\r\n" + LENGTH, id="a second answer after 204"),
        pytest.param("GET", b"HTTP/1.1 204 x\r\nContent-Length: 2\r\n\r\nhi", id="body of a 204"),
        pytest.param("GET", b"HTTP/1.1 304 x\r\nContent-Length: 2\r\n\r\nhi", id="body of a 304"),
        pytest.param("HEAD", LENGTH, id="body of a HEAD"),
        pytest.param("HEAD", CHUNKED, id="chunks of a HEAD"),
        pytest.param("HEAD", LENGTH[:-4], id="half a body of a HEAD"),
        pytest.param(
            "HEAD",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5",
            id="half a chunk size of a HEAD",
        ),
        pytest.param(
            "HEAD",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="the last chunk of a HEAD",
        ),
    ],
)
async def test_surplus_in_the_same_bytes_is_dropped_and_spoils_the_connection(
    method: str, answer: bytes
) -> None:
    reply = make(method)
    reply.feed(answer)

    assert await whole(reply) in (b"hello", b"")
    assert reply.status in (200, 204, 304)
    assert not reply.is_clean


async def test_surplus_that_comes_later_spoils_the_connection_too() -> None:
    reply = make()
    reply.feed(LENGTH)

    assert not reply.feed(b"x")
    assert await whole(reply) == b"hello"
    assert not reply.is_clean


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="another protocol"),
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x46", id="a TLS alert"),
        pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", id="status is no number"),
        pytest.param(b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n", id="header without a colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", id="bare CR in a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", id="NUL in a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", id="space before the colon"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            id="2 lengths",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            id="length and chunks",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", id="negative length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            id="a coding nobody asked for",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", id="a coding alone"),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            id="101",
        ),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="101 without upgrade"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n",
            id="chunked twice",
        ),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="chunks in HTTP/1.0",
        ),
        pytest.param(b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", id="HTTP/0.9"),
        pytest.param(b"HTTP/1.1 000 OK\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 200 O\x06K\r\nContent-Length: 0\r\n\r\n", id="control in a reason"),
        pytest.param(
            b"HTTP/1.1 199 x\r\nContent-Length: 5\r\n\r\nother" + LENGTH,
            id="an interim answer with a body",
        ),
        pytest.param(
            b"HTTP/1.1 199 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + LENGTH,
            id="an interim answer with chunks",
        ),
    ],
)
async def test_what_is_not_an_answer_to_us_is_broken(answer: bytes) -> None:
    reply = make()

    assert not reply.feed(answer)

    with pytest.raises(UpstreamBrokenError) as caught:
        await head_of(reply)
    assert caught.value.answered
    assert not reply.is_clean


async def test_a_malformed_chunk_wakes_the_reader() -> None:
    """aiohttp's client closes the connection and lets the reader wait for ever (traps.md)."""
    reply = make()
    reply.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n")
    assert await reply.read() == b"hel"
    reading = asyncio.ensure_future(reply.read())
    await asyncio.sleep(0)

    reply.feed(b"zz\r\n")

    async with asyncio.timeout(1):
        with pytest.raises(UpstreamBrokenError):
            await reading


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"A: " + b"b" * 1000 + b"\r\n", id="one head"),
        pytest.param(b"\r\nHTTP/1.1 103 Early\r\nA: " + b"b" * 1000 + b"\r\n", id="many heads"),
    ],
)
async def test_a_head_without_end_is_not_collected(piece: bytes) -> None:
    reply = make()
    fed = len(b"HTTP/1.1 103 OK\r\n")
    going_on = reply.feed(b"HTTP/1.1 103 OK\r\n")

    while going_on and fed < 2 * HEAD_LIMIT:
        going_on = reply.feed(piece)
        fed += len(piece)

    assert fed <= HEAD_LIMIT + len(piece)
    with pytest.raises(UpstreamBrokenError, match="without end"):
        await head_of(reply)


async def test_header_bytes_stay_as_they_are() -> None:
    reply = make()
    reply.feed(
        b"HTTP/1.1 200 Gr\xfc\xdfe\r\nX-MULTI: 1\r\nx-multi: 2\r\nX-Multi: 1\r\nX-Empty:\r\n"
        b"X-Latin: \xe9\xff\r\nX-Spaces: a  b\t c\r\nContent-Length: 0\r\n\r\n"
    )

    assert reply.head.line.reason == b"Gr\xfc\xdfe"
    assert reply.headers == [
        (b"X-MULTI", b"1"),
        (b"x-multi", b"2"),
        (b"X-Multi", b"1"),
        (b"X-Empty", b""),
        (b"X-Latin", b"\xe9\xff"),
        (b"X-Spaces", b"a  b\t c"),
        (b"Content-Length", b"0"),
    ]


INTERIM = [
    pytest.param(b"Connection: close\r\n", id="close"),
    pytest.param(b"Connection: upgrade, close\r\nUpgrade: h2c\r\n", id="upgrade"),
    pytest.param(b"Content-Length: 5\r\n", id="length"),
    pytest.param(b"Content-Length: 0\r\n", id="no length"),
    pytest.param(b"Content-Length: x\r\nContent-Length: 7\r\n", id="bad lengths"),
    pytest.param(b"Transfer-Encoding: chunked\r\n", id="chunked"),
    pytest.param(b"Transfer-Encoding: gzip\r\nContent-Length: 3\r\n", id="gzip"),
    pytest.param(b"Trailer: x\r\nX-Odd:y\r\nX-Empty:\r\n", id="odd lines"),
    pytest.param(b"Link: </x>; rel=preload\r\n" * 500, id="many"),
]


@pytest.mark.parametrize("fields", INTERIM)
@pytest.mark.parametrize("line", [b"HTTP/1.1 100 Continue", b"HTTP/1.1 199", b"HTTP/1.0 102 x"])
async def test_an_interim_answer_says_nothing_about_the_connection_or_a_body(
    line: bytes, fields: bytes
) -> None:
    """RFC 9110, 15.2 and RFC 9112, 9.6: `close` is about the final response (cpp-httplib#661)."""
    interim = line + b"\r\n" + fields + b"\r\n"
    for pieces in (
        [interim + interim + LENGTH],
        [interim, LENGTH],
        [interim[:-1], interim[-1:] + interim + LENGTH[:3], LENGTH[3:]],
    ):
        reply = make()
        for piece in pieces:
            assert reply.feed(piece)

        await head_of(reply)
        assert reply.status == 200
        assert reply.headers == [(b"Content-Length", b"5")]
        assert await whole(reply) == b"hello"
        assert reply.is_clean


async def test_interim_answers_before_one_to_head_are_no_surplus() -> None:
    reply = make("HEAD")
    reply.feed(b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n")
    reply.feed(b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")

    assert await whole(reply) == b""
    assert reply.is_clean


async def test_interim_answers_without_end_are_not_collected() -> None:
    reply = make()
    while reply.feed(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000):
        pass

    with pytest.raises(UpstreamBrokenError, match="without end"):
        await head_of(reply)


async def test_nothing_of_an_interim_answer_or_a_trailer_is_among_the_headers() -> None:
    reply = make()
    reply.feed(b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n" + TRAILERS)

    assert reply.headers == [(b"Transfer-Encoding", b"chunked")]
    assert reply.head.line.reason == b"OK"


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", True, id="1.1"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False, id="1.1 close"),
        pytest.param(b"HTTP/1.0 200 OK\r\n", False, id="1.0"),
        pytest.param(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True, id="1.0 keep-alive"),
    ],
)
async def test_the_api_decides_whether_the_connection_is_kept(head: bytes, *, kept: bool) -> None:
    reply = make()
    reply.feed(head + b"Content-Length: 5\r\n\r\nhello")

    assert await whole(reply) == b"hello"
    assert reply.is_clean is kept


async def test_a_body_that_pauses_too_long_is_a_timeout() -> None:
    reply = make(idle=0.01)
    reply.feed(LENGTH[:-1])
    assert await reply.read() == b"hell"

    with pytest.raises(UpstreamTimeoutError) as caught:
        await reply.read()

    assert caught.value.answered


async def test_an_answer_that_is_over_lets_go_of_its_connection() -> None:
    """The connection may be on another organization's request by then."""
    source = FakeSource()
    reply = make(source=source)
    reply.feed(LENGTH)
    assert await whole(reply) == b"hello"
    assert source.finished == [reply]
    taken = source.taken

    assert await reply.read() == b""
    reply.close()

    assert source.finished == [reply]
    assert source.taken == taken


async def test_reading_after_closing_early_does_not_look_like_an_end() -> None:
    reply = make()
    reply.feed(LENGTH[:-2])
    reply.close()

    assert await reply.read() == b"hel"
    with pytest.raises(UpstreamBrokenError):
        await reply.read()


async def test_an_answer_that_was_read_leaves_nothing_for_the_garbage_collector() -> None:
    """One circle for each request, and it took 5 % of the time to find them."""
    reply = make()
    reply.feed(LENGTH)
    await whole(reply)
    still_there = weakref.ref(reply)
    gc.disable()
    try:
        del reply

        assert still_there() is None
    finally:
        gc.enable()
