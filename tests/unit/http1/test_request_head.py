"""A head is read in one way or refused; the rows are ways in which servers have differed."""

from __future__ import annotations

import pytest

from icr_proxy.errors import (
    BadRequestError,
    HeadersTooLargeError,
    InstallationInvalidError,
    NotImplementedMethodError,
    ProxyError,
    UriTooLongError,
)
from icr_proxy.http1.request_head import HeadRules, RequestHead, check_begun, read_head

RULES = HeadRules(uri=100, headers=200, tag="X-Tag")


def head(lines: bytes = b"Host: a\r\n", *, line: bytes = b"GET /x HTTP/1.1") -> bytes:
    return line + b"\r\n" + lines + b"\r\n"


def read(data: bytes) -> RequestHead:
    return read_head(data, RULES)


# -- what it says ---------------------------------------------------------------------------------


def test_a_head_is_read_as_it_is() -> None:
    found = read(
        head(b"host:a\r\nX-A: \t1 \t\r\nx-a:\r\nX-A: \xff\t\xe9\r\n", line=b"PUT //%2f?;? HTTP/1.1")
    )

    assert (found.method, found.target, found.section.length) == ("PUT", "//%2f?;?", 0)
    assert not found.section.is_old
    assert not found.is_last
    assert found.section.headers == (
        (b"host", b"a"), (b"X-A", b"1"), (b"x-a", b""), (b"X-A", b"\xff\t\xe9")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "lines", "is_last"),
    [
        pytest.param(b"GET / HTTP/1.1", b"", False, id="1.1"),
        pytest.param(b"GET / HTTP/1.1", b"Connection: close\r\n", True, id="close"),
        pytest.param(b"GET / HTTP/1.1", b"Connection: x ,\tCLOSE\r\n", True, id="close in a list"),
        pytest.param(
            b"GET / HTTP/1.1", b"Connection: x\r\nconnection: close\r\n", True, id="twice"
        ),
        pytest.param(b"GET / HTTP/1.1", b"Connection: close, keep-alive\r\n", True, id="both"),
        pytest.param(b"GET / HTTP/1.1", b"Connection: closed\r\n", False, id="closed"),
        pytest.param(b"GET / HTTP/1.0", b"", True, id="1.0"),
        pytest.param(b"GET / HTTP/1.0", b"Connection: Keep-Alive\r\n", False, id="1.0 kept"),
        pytest.param(b"CONNECT a:1 HTTP/1.1", b"", True, id="CONNECT"),
        pytest.param(
            b"GET / HTTP/1.1", b"Connection: upgrade\r\nUpgrade: x\r\n", False, id="upgrade"
        ),
    ],
)
def test_the_connection_ends_with_a_request_that_says_so(
    line: bytes, lines: bytes, *, is_last: bool
) -> None:
    """RFC 9112, 9.3."""
    assert read(head(b"Host: a\r\n" + lines, line=line)).is_last is is_last


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        pytest.param(b"Content-Length: 0\r\n", 0, id="none"),
        pytest.param(b"Content-Length: 007\r\n", 7, id="zeros"),
        pytest.param(b"content-length:\t9223372036854775807 \r\n", 2**63 - 1, id="the most"),
        pytest.param(b"Transfer-Encoding: Chunked\r\n", None, id="chunked"),
    ],
)
def test_the_body_is_as_long_as_it_says(lines: bytes, length: int | None) -> None:
    assert read(head(b"Host: a\r\n" + lines)).section.length == length


def test_only_http_1_1_needs_a_host() -> None:
    assert read(head(b"", line=b"GET / HTTP/1.0")).section.is_old


# -- what is refused ------------------------------------------------------------------------------

BAD_LINES = [
    b"Content-Length: 9223372036854775808",
    b"Content-Length: 18446744073709551615",
    b"Content-Length: 1" + b"0" * 40,
    b"Content-Length:",
    b"Content-Length: 1\r\nContent-Length: 1",
    b"Content-Length: 1, 1",
    b"Content-Length: 1\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 1",
    b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Host: a",
    b"X : 1",
    b"X: 1\r\n folded",
    b"X: 1\x00",
    b"X: 1\r2",
    b"X: 1\n2: 3",
    b": 1",
    b"no colon",
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_what_can_be_read_in_two_ways_is_not_read(line: bytes) -> None:
    with pytest.raises(BadRequestError):
        read(head(b"Host: a\r\n" + line + b"\r\n"))


@pytest.mark.parametrize(
    "line",
    [
        b"GET /x RTSP/1.1", b"GET /x ICE/1.1", b"GET /x HTTP/1.2", b"GET /x HTTP/2.0",
        b"GET /x http/1.1", b"GET  /x HTTP/1.1", b"GET /x  HTTP/1.1", b"GET /x HTTP/1.1 ",
        b" GET /x HTTP/1.1", b"GET\t/x HTTP/1.1", b"GET /x#y HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1",
        b"GET /x y HTTP/1.1", b"GET /x", b"GET", b"\nGET /x HTTP/1.1",
    ],
)  # fmt: skip
def test_the_request_line_has_one_form(line: bytes) -> None:
    with pytest.raises(BadRequestError):
        read(head(line=line))


def test_chunked_is_not_known_to_http_1_0() -> None:
    """RFC 9112, 6.1: such a message is to be treated as if its framing were faulty."""
    with pytest.raises(BadRequestError):
        read(head(b"Transfer-Encoding: chunked\r\n", line=b"POST / HTTP/1.0"))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(head(b""), BadRequestError, id="no Host"),
        pytest.param(head(b"Host: a b\r\n"), BadRequestError, id="malformed Host"),
        pytest.param(head(line=b"get /x HTTP/1.1"), NotImplementedMethodError, id="lower"),
        pytest.param(head(line=b"FROB /x HTTP/1.1"), NotImplementedMethodError, id="unknown"),
        pytest.param(
            head(b"Host: a\r\nTransfer-Encoding: gzip, chunked\r\n"), NotImplementedMethodError,
            id="another coding",
        ),
        pytest.param(head(b"Host: a\r\nX-tag: a\x0b\r\n"), InstallationInvalidError, id="tag"),
        pytest.param(head(line=b"GET /" + b"x" * 100 + b" HTTP/1.1"), UriTooLongError, id="uri"),
        pytest.param(head(line=b"x" * 200), UriTooLongError, id="long line without spaces"),
        pytest.param(head(b"X: " + b"x" * 200 + b"\r\n"), HeadersTooLargeError, id="all"),
    ],
)  # fmt: skip
def test_a_mistake_has_a_name(data: bytes, error: type[ProxyError]) -> None:
    with pytest.raises(error) as raised:
        read(data)
    assert type(raised.value) is error


def test_the_number_of_lines_is_limited() -> None:
    rules = HeadRules(uri=100, headers=2000, tag="X")

    read_head(head(b"Host: a\r\n" + b"X: y\r\n" * 127), rules)
    with pytest.raises(HeadersTooLargeError):
        read_head(head(b"Host: a\r\n" + b"X: y\r\n" * 128), rules)


# -- while it comes -------------------------------------------------------------------------------


WHOLE = head(b"Host: a\r\nX: \xe9\r\n", line=b"OPTIONS * HTTP/1.1")


@pytest.mark.parametrize("size", range(1, len(WHOLE) - 1))
def test_what_can_become_a_head_is_waited_for(size: int) -> None:
    check_begun(WHOLE[:size], RULES)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"\x16\x03\x01", BadRequestError, id="TLS"),
        pytest.param(b"GET / HTTP/1.1\nHost", BadRequestError, id="line feed"),
        pytest.param(b"GET / HTTP/1.1\r\nA: b\nC", BadRequestError, id="line feed in the headers"),
        pytest.param(b"GET / HTTP/1.1\r\nA: b\rC", BadRequestError, id="CR in the headers"),
        pytest.param(b"GET /" + b"x" * 300, UriTooLongError, id="target"),
        pytest.param(b"GET / HTTP/1.1\r\nA: " + b"b" * 200, HeadersTooLargeError, id="headers"),
    ],
)
def test_what_cannot_become_a_head_is_not_waited_for(data: bytes, error: type[ProxyError]) -> None:
    with pytest.raises(error) as raised:
        check_begun(data, RULES)
    assert type(raised.value) is error


def test_a_lone_line_feed_is_seen_where_two_packets_meet() -> None:
    data = b"GET / HTTP/1.1\r\nA: b\nC"

    with pytest.raises(BadRequestError):
        check_begun(data, RULES, since=len(data) - 1)
    check_begun(b"GET / HTTP/1.1\r\nA: b", RULES, since=15)
