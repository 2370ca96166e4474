"""Two servers that disagree about where a request ends can be made to exchange requests.

Each row is a way in which servers have disagreed. What is refused is refused before a byte of it
reaches the API, and ends the connection; what is served reaches it in one form only, our own.
"""

from __future__ import annotations

import pytest

from tests.support.app_fixture import TAG
from tests.support.wire_client import statuses, wire

CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = b"3\r\nabc\r\n0\r\n\r\n"
TAGGED = TAG.encode() + b": inst-1\r\n"


def get(target: bytes = b"/next", lines: bytes = b"") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + TAGGED + lines + b"\r\n"


def post(lines: bytes, body: bytes = b"", *, version: bytes = b"HTTP/1.1") -> bytes:
    return b"POST /a " + version + b"\r\nHost: localhost\r\n" + TAGGED + lines + b"\r\n" + body


LAST = get(b"/last", b"Connection: close\r\n")


def length(value: bytes) -> bytes:
    return post(b"Content-Length: " + value + b"\r\n", b"abcde")


def coding(value: bytes) -> bytes:
    return post(b"Transfer-Encoding: " + value + b"\r\n", BODY)


def chunks(body: bytes) -> bytes:
    return post(CHUNKED, body)


def header(line: bytes) -> bytes:
    return post(line + b"\r\n")


def line(request_line: bytes) -> bytes:
    return request_line + b"\r\nHost: localhost\r\n" + TAGGED + b"\r\n"


LENGTHS = [
    length(value)
    for value in (
        b"+5", b"-1", b"0x5", b"5_0", b"5 5", b"5\x0b", b"5\x0c", b"", b"5.0", b"5;", b"\xb2",
        b'"5"', b"5, 5", b"5, 6", b"9" * 23, b"18446744073709551616", b"18446744073709551615",
        b"9223372036854775808", b"5\r\nContent-Length: 5", b"5\r\nContent-Length: 6",
        b"5\r\ncontent-length:\t5", b"5\r\n\t5", b"5\r\nTransfer-Encoding: chunked",
        b"5\r\nTransfer-Encoding: identity",
    )
]  # fmt: skip
CODINGS = [
    coding(value)
    for value in (
        b"chunked, gzip", b"chunked, identity", b"chunked, chunked", b"chunke", b"xchunked",
        b"chunkedx", b"chunked\x0b", b"\x0bchunked", b"\x00chunked", b"chun\tked", b'"chunked"',
        b"chunked;q=1",
        b"\tchunked\t", b"chunked x", b"chunked,", b", chunked ,", b"", b"identity", b"gzip",
        b"ch\xc5\xbfunked", b"chunked\r\nTransfer-Encoding: chunked",
        b"chunked\r\nTransfer-Encoding: identity", b"chunked\r\nContent-Length: 3",
        b"\r\n chunked", b"chunked\r\nTransfer-Encoding:",
    )
]  # fmt: skip
HEADERS = [
    header(text)
    for text in (
        b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b"Transfer-\tEncoding: x",
        b" Transfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
        b"X: y\nTransfer-Encoding: chunked", b"X: y\n\rTransfer-Encoding: chunked", b": x",
        b"X: a\r\n fold", b"X: a\r\n\tfold", b"X", b"X\x00: a", b"X: a\x00", b"X: \x01", b"X: \x7f",
        b"X: \x0b", b"X\xff: a", b"X[: a", b'X"y: a', b"X@y: a", b"X/y: a", b"X y: a", b"X,y: a",
        b"X: a\r", b"\r: a", b"Content-Length\r\n: 3", b"Host: localhost", b"Content-Length\x00: 3",
    )
]  # fmt: skip
LINES = [
    line(text)
    for text in (
        b"G\x00T /a HTTP/1.1", b"G T /a HTTP/1.1", b" GET /a HTTP/1.1", b"\tGET /a HTTP/1.1",
        b"G\xc3T /a HTTP/1.1", b"(GET /a HTTP/1.1", b" /a HTTP/1.1", b"GET /a HTTP/1.2",
        b"GET /a HTTP/0.9", b"GET /a HTTP/2.0", b"GET /a HTTP/1.10", b"GET /a http/1.1",
        b"GET /a HTTP/1.1 ", b"GET /a HTTP/11", b"GET /a HTTP/1", b"GET /a HTTP /1.1",
        b"GET /a HTTP/01.1", b"GET /a RTSP/1.1", b"GET /a ICE/1.1", b"GET /a HTTPS/1.1", b"GET /a ",
        b"GET /a", b"GET", b"PRI * HTTP/2.0", b"GET /a b HTTP/1.1", b"GET /\x00 HTTP/1.1",
        b"GET /\x01 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET\t/a\tHTTP/1.1", b"GET /\xff HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1", b"GET /a\r HTTP/1.1", b"GET /a#b HTTP/1.1", b"GET  /a HTTP/1.1",
        b"GET /a  HTTP/1.1", b"GET a HTTP/1.1", b"GET ?a HTTP/1.1",
        b"\nGET /a HTTP/1.1", b"\rGET /a HTTP/1.1",
        b"GET /a HTTP/1.1\nX: y", b"GET /a HTTP/1.1\r", b"GET /a HTTP/1.1\r\n X: y",
        b"GET /a HTTP/1.1\r\n ",
    )
]  # fmt: skip
OTHERS = [
    get().replace(b"\r\n", b"\n"),
    get().replace(b"Host: localhost\r\n", b""),
    get().replace(b"localhost", b"local host"),
    get().replace(b"localhost", b"localhost:80/evil"),
    post(CHUNKED, BODY, version=b"HTTP/1.0"),
    post(CHUNKED + b"Connection: keep-alive\r\n", BODY, version=b"HTTP/1.0"),
]
REFUSED = [*LENGTHS, *CODINGS, *HEADERS, *LINES, *OTHERS]


@pytest.mark.parametrize("request_", REFUSED)
async def test_what_can_be_read_in_two_ways_reaches_nobody(request_: bytes) -> None:
    async with wire() as found:
        answers = await found.say(request_ + get())

        assert statuses(answers) == [400]
        assert b"\r\nConnection: close\r\n" in answers
        assert found.received == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(coding(b"gzip, chunked"), 501, id="another coding"),
        pytest.param(coding(b"identity, chunked"), 501, id="identity"),
        pytest.param(coding(b",chunked"), 501, id="an empty coding"),
        pytest.param(coding(b"gzip\r\nTransfer-Encoding: chunked"), 501, id="two headers"),
        pytest.param(line(b"get /a HTTP/1.1"), 501, id="method in lower case"),
        pytest.param(line(b"FROB /a HTTP/1.1"), 501, id="unknown method"),
        pytest.param(
            line(b"CONNECT api:443 HTTP/1.1\r\nContent-Length: 9"),
            501,
            id="CONNECT with a body that is a request",
        ),
    ],
)  # fmt: skip
async def test_what_is_not_served_takes_what_follows_with_it(request_: bytes, status: int) -> None:
    async with wire() as found:
        answers = await found.say(request_ + get())

        assert statuses(answers) == [status]
        assert found.received == []


@pytest.mark.parametrize(
    "body",
    [
        b"-3\r\nabc\r\n", b"+3\r\nabc\r\n", b"0x3\r\nabc\r\n", b"3_\r\nabc\r\n", b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n", b"3\t\r\nabc\r\n", b"\r\nabc\r\n", b"g\r\nabc\r\n",
        b"10000000000000003\r\nabc\r\n", b"ffffffffffffffff\r\nabc", b"3;\r\nabc\r\n",
        b'3;x="y\r\nabc\r\n', b"3 ;x\r\nabc\r\n", b"3;x\nabc\r\n", b"3;x\ry\r\nabc\r\n",
        b"3;\x00\r\nabc\r\n", b"3;=\r\nabc\r\n", b"3\nabc\r\n", b"3\rabc\r\n", b"3\r\nabc\n0\r\n",
        b"3\r\nabc\r0\r\n", b"3\r\nabc0\r\n", b"3\r\nabcd\r\n", b"3\r\nabcXX", b"3\r\nabc\r\n0\n\n",
        b"3\r\nabc\r\n0\r\n\n", b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n",
        b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\nHost: evil\r\n",
        b"3\r\nabc\r\n0\r\nX : y\r\n", b"3\r\nabc\r\n0\r\n X: y\r\n",
        b"3\r\nabc\r\n0\r\nX\x00: y\r\n",
        b"3\r\nabc\r\n0\r\nX: y\nZ: w\r\n", b"3\r\nabc\r\n0\r\nnocolon\r\n", b"3\r\nabc\r\n-0\r\n",
        b"\xef\xbc\x93\r\nabc\r\n", b"3\r\r\nabc\r\n", b"3;" + b"x" * 20000 + b"\r\nabc\r\n",
    ],
)  # fmt: skip
async def test_a_malformed_body_is_never_a_whole_one(body: bytes) -> None:
    """Its head may have gone on; its end never does, and nothing that follows."""
    async with wire() as found:
        answers = await found.say(chunks(body + b"0\r\n\r\n" + get()))

        assert statuses(answers) == [400]
        assert found.received == []


@pytest.mark.parametrize(
    ("request_", "framing", "body"),
    [
        pytest.param(post(b"Content-Length: 0\r\n"), b"Content-Length: 0", b"", id="no body"),
        pytest.param(length(b"\t5 \t"), b"Content-Length: 5", b"abcde", id="spaces around"),
        pytest.param(length(b"0005"), b"Content-Length: 5", b"abcde", id="zeros before"),
        pytest.param(coding(b"Chunked"), b"Transfer-Encoding: chunked", b"abc", id="upper case"),
        pytest.param(
            chunks(b'3;a=b;c="d;e"\r\nabc\r\n02;x\r\nde\r\n00;y\r\nX: y\r\n' + TAGGED + b"\r\n"),
            b"Transfer-Encoding: chunked", b"abcde", id="extensions and trailers are dropped",
        ),
        pytest.param(header(b"Transfer_Encoding: chunked"), None, b"", id="underscore: coding"),
        pytest.param(header(b"Content_Length: 5"), None, b"", id="underscore: length"),
        pytest.param(b"\r\n\r\n" + header(b"X: y"), None, b"", id="empty lines before"),
        pytest.param(
            header(b"Connection: Content-Length\r\nContent-Length: 0"), b"Content-Length: 0", b"",
            id="length named as hop-by-hop",
        ),
        pytest.param(
            post(b"Connection: Transfer-Encoding\r\n" + CHUNKED, BODY),
            b"Transfer-Encoding: chunked", b"abc", id="coding named as hop-by-hop",
        ),
    ],
)  # fmt: skip
async def test_what_is_served_is_framed_once_and_anew(
    request_: bytes, framing: bytes | None, body: bytes
) -> None:
    async with wire() as found:
        answers = await found.say(request_ + get() + LAST)

        assert statuses(answers) == [200, 200, 200]
        assert found.targets == [b"/a", b"/next", b"/last"]
        first = found.received[0]
        about = (b"content", b"transfer")
        assert [each for each in first.lines if each.lower().startswith(about)] == (
            [framing] if framing is not None else []
        )
        assert first.body == body


@pytest.mark.parametrize("split", [True, False], ids=["two packets", "one packet"])
async def test_what_follows_a_body_is_the_next_request(*, split: bool) -> None:
    first = post(b"Content-Length: 3\r\n", b"abc")
    async with wire() as found:
        answers = await found.say(*([first, LAST] if split else [first + LAST]))

        assert statuses(answers) == [200, 200]
        assert [each.body for each in found.received] == [b"abc", b""]


async def test_what_follows_a_body_and_is_no_request_is_refused_after_it() -> None:
    async with wire() as found:
        answers = await found.say(post(b"Content-Length: 3\r\n", b"abcXXX\r\n\r\n") + get())

        assert statuses(answers) == [200, 400]
        assert [each.body for each in found.received] == [b"abc"]


@pytest.mark.parametrize("split", [True, False], ids=["two packets", "one packet"])
@pytest.mark.parametrize(
    "last",
    [
        pytest.param(LAST, id="without a body"),
        pytest.param(post(b"Connection: close\r\nContent-Length: 3\r\n", b"abc"), id="with one"),
        pytest.param(LAST.replace(b"HTTP/1.1", b"HTTP/1.0"), id="1.0"),
        pytest.param(get().replace(b"HTTP/1.1", b"HTTP/1.0"), id="1.0 that says nothing"),
    ],
)
async def test_nothing_follows_the_last_request_of_a_connection(
    last: bytes, *, split: bool
) -> None:
    """RFC 9112, 9.6."""
    async with wire() as found:
        answers = await found.say(*([last, get()] if split else [last + get()]))

        assert statuses(answers) == [200]
        assert len(found.received) == 1


async def test_an_upgrade_that_is_refused_hides_no_request() -> None:
    upgrade = get(b"/ws", b"Connection: upgrade\r\nUpgrade: websocket\r\n")
    async with wire() as found:
        answers = await found.say(upgrade + get() + LAST)

        assert statuses(answers) == [501, 200, 200]
        assert found.targets == [b"/next", b"/last"]


async def test_a_body_cut_in_any_place_is_the_same_body() -> None:
    request = chunks(b"3;x\r\nabc\r\n2\r\n\r\n\r\n0\r\nX: y\r\n\r\n") + LAST
    async with wire() as found:
        for cut in range(1, len(request), 7):
            assert statuses(await found.say(request[:cut], request[cut:])) == [200, 200]

        assert {each.body for each in found.received} == {b"abc\r\n", b""}
