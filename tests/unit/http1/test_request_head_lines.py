"""A plain head that is read line by line says what llhttp says, whatever was read before."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from icr_proxy.errors import ProxyError
from icr_proxy.http1.request_head import (
    MAX_LINES,
    HeaderCache,
    HeadRules,
    LineCache,
    check_begun,
    read_head,
)
from icr_proxy.http1.request_parser import RequestParser
from tests.fuzz.grammar import make_case
from tests.unit.http1.test_request_head import BAD_LINES

if TYPE_CHECKING:
    from collections.abc import Iterable

RULES = HeadRules(uri=4096, headers=16384, tag="X-ICR-Installation-Id")
END = b"\r\n\r\n"
# Lines that some parser reads in another way, that belong together, or that look as if they did.
LINES = [
    *BAD_LINES,
    b"Host: a", b"host:a", b"Host: a:1", b"Host:", b"Host: a b", b"HOST:\ta \t",
    b"Content-Length: 3", b"Content-Length: 03", b"Content-Length: +3", b"Content-Length: 3 3",
    b"Content-Length:", b"Content-Length: 9223372036854775807",
    b"Content-Length: 99999999999999999999",
    b"content-length: 3\t", b"Content_Length: 3", b"Content-Length : 3", b"Content-Length: 3, 3",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: CHUNKED",
    b"transfer-encoding: gzip, chunked",
    b"Transfer-Encoding:", b"Transfer_Encoding: chunked", b"Transfer-Encoding: chunked, chunked",
    b"Connection: close", b"Connection: keep-alive", b"Connection: x ,\tCLOSE", b"Connection:",
    b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"Upgrade: websocket", b"Upgrade:",
    b"Proxy-Connection: close", b"Expect: 100-continue", b"Expect: x", b"Trailer: x",
    b"Accept: */*", b"User-Agent: axios/1.21.1", b"X-Request-Id: r", b"traceparent: 00-x",
    b"X-ICR-Installation-Id: bench", b"X-ICR-Installation-Id: a\x01b", b"Authorization: Bearer x",
    b"Cookie: a=b", b"X: \xff\xe9", b"X: a\x7fb", b"X: a\x0bb", b"X: a\x0cb", b"X: \x00", b"X:\t\t",
    b" X: folded", b"\tX: folded", b"X", b":", b": x", b"X Y: z", b"X\t: z", b"X(: z", b"X:y:z",
    b"\xc3\xa9: x", b"X: a\rb", b"X: a\nb", b"X: a\r", b"\rX: a", b"X: " + b"x" * 300, b"",
]  # fmt: skip
REQUEST_LINES = [
    b"GET / HTTP/1.1", b"GET /a?b=c HTTP/1.1", b"POST /v1/retire HTTP/1.1", b"OPTIONS /x HTTP/1.1",
    b"DELETE /x HTTP/1.0", b"GET / HTTP/1.0", b"PUT /%2f;.. HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"CONNECT a:1 HTTP/1.1", b"TRACE / HTTP/1.1", b"M-SEARCH / HTTP/1.1", b"FROB / HTTP/1.1",
    b"GET http://a/ HTTP/1.1", b"GET / RTSP/1.0", b"GET  / HTTP/1.1", b"GET /\xff HTTP/1.1",
]  # fmt: skip


def verdict(data: bytes, cache: LineCache | None) -> object:
    """Everything that a reading says, or the refusal with its words."""
    try:
        head = read_head(data, RULES, cache)
    except ProxyError as error:
        return type(error), str(error)
    section = head.section
    return (
        head.method, head.target, head.is_last, section.headers, section.is_old, section.is_last,
        section.length, section.announced, section.expects, section.options,
        {name: list(values) for name, values in section.fields.items()},
        [line.written for line in section.lines],
    )  # fmt: skip


def composed(random: Random) -> bytes:
    """A head of a few lines; one in four is damaged in a byte."""
    lines = random.choices(LINES, k=random.choice((0, 1, 2, 3, 5, 8)))
    if random.random() < 0.8:
        lines.insert(random.randrange(len(lines) + 1), b"Host: a")
    data = b"\r\n".join([random.choice(REQUEST_LINES), *lines]) + END
    if random.random() < 0.25:
        place = random.randrange(len(data))
        data = data[:place] + bytes([random.randrange(256)]) + data[place + 1 :]
    return data[: data.index(END) + 4] if END in data else data + END


def heads_in_fuzzed_streams(number: int) -> Iterable[bytes]:
    """The heads of a stream of the fuzzers' grammar, as far as they can be told apart."""
    for piece in make_case(Random(number)).stream.split(END):
        data = piece.lstrip(b"\r\n") + END
        try:
            check_begun(data, RULES)
        except ProxyError:
            continue
        yield data


CORPUS = {
    "composed": lambda number: [composed(Random(number))],
    "fuzzed": heads_in_fuzzed_streams,
}


@pytest.mark.parametrize("kind", CORPUS)
def test_line_by_line_says_what_llhttp_says_with_a_warm_and_a_cold_cache(kind: str) -> None:
    warm, compared, plain = LineCache(), 0, 0
    for number in range(6000):
        for data in CORPUS[kind](number):
            full = verdict(data, None)
            assert verdict(data, LineCache()) == full, data
            assert verdict(data, warm) == full, data
            assert verdict(data, warm) == full, data
            compared += 1
            plain += not (isinstance(full, tuple) and len(full) == 2)

    assert compared > 4000
    assert plain > 500, "the corpus must hold what is served, too"


@pytest.mark.parametrize("byte", range(256))
@pytest.mark.parametrize("place", ["in the name", "in the value", "at the end"])
def test_every_byte_of_a_line_is_read_as_llhttp_reads_it(byte: int, place: str) -> None:
    line = {"in the name": b"X%cY: z", "in the value": b"X: y%cz", "at the end": b"X: y%c"}[place]
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + line % byte + END

    assert verdict(data, LineCache()) == verdict(data, None)


def test_a_head_of_many_lines_leaves_none_behind() -> None:
    cache = LineCache()
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(MAX_LINES))

    assert verdict(data + b"\r\n", cache) == verdict(data + b"\r\n", None)
    assert len(cache) == 0


@pytest.mark.parametrize(
    "line",
    [
        b"X-Request-Id: r-1",
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"tracestate: a=b",
        b"Idempotency-Key: k",
        b"AUTHORIZATION: Bearer x",
        b"Proxy-Authorization: Basic eDp5",
        b"Cookie: a=b",
        b"X-Api-Key: x",
        b"X-Access-Token: x",
        b"X-Whatever: crs_secret",
        b"X-Whatever: eyJhbGciOiJSUzI1NiJ9",
        b"X-Long: " + b"x" * 250,
    ],
)
def test_secrets_and_what_is_new_in_each_request_are_not_kept(line: bytes) -> None:
    cache = LineCache()

    read_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + END, RULES, cache)

    assert list(cache) == [b"Host: a"]


def test_the_lines_of_one_client_are_not_in_the_request_of_another() -> None:
    """Connections of a listener share lines; a request has its own and no others."""
    shared = HeaderCache()
    one, other = RequestParser(RULES, shared), RequestParser(RULES, shared)
    for number in range(300):
        ours = b"GET /%d HTTP/1.1\r\nHost: a\r\nX-Mine: %d\r\nX-Both: b\r\n\r\n" % (number, number)
        theirs = b"GET /t HTTP/1.1\r\nHost: a\r\nX-Both: b\r\nX-Theirs: %d\r\n\r\n" % number
        for parser, data in ((one, ours), (other, theirs)):
            parser.receive(data)
            head = parser.next_head()
            assert head is not None
            assert head.section.headers == read_head(data, RULES).section.headers


def test_the_cache_is_bounded() -> None:
    cache = LineCache()
    for number in range(2000):
        read_head(b"GET / HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n" % number, RULES, cache)

        assert len(cache) <= 512
