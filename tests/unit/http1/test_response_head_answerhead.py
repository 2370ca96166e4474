"""What a head may say, and that we read in it what llhttp does; `test_reply` tries the bytes."""

from __future__ import annotations

from contextlib import suppress

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from icr_proxy.http1.response_head import (
    LINES_KEPT,
    ResponseHead,
    read_response_head,
    read_status_line,
    skip_interim,
)


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        pytest.param(b"HTTP/1.1 200 OK", (200, b"OK", False), id="as usual"),
        pytest.param(b"HTTP/1.0 404 Not Found", (404, b"Not Found", True), id="1.0"),
        pytest.param(b"HTTP/1.1 100 ", (100, b"", False), id="interim, no phrase"),
        pytest.param(b"HTTP/1.1 204", (204, b"", False), id="not even a space"),
        pytest.param(
            b"HTTP/1.1 200 Gr\xfc\xdfe\t!", (200, b"Gr\xfc\xdfe\t!", False), id="obs-text and tab"
        ),
        pytest.param(b"HTTP/0.9 200 OK", None, id="0.9"),
        pytest.param(b"HTTP/2.0 200 OK", None, id="2.0"),
        pytest.param(b"RTSP/1.0 200 OK", None, id="another protocol"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols", None, id="101"),
        pytest.param(b"HTTP/1.1 099 OK", None, id="no status"),
        pytest.param(b"HTTP/1.1 200 O\x06K", None, id="control"),
        pytest.param(b"HTTP/1.1 200 O\x7fK", None, id="delete"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_a_first_line_is_that_of_an_answer_to_us(
    line: bytes, ours: tuple[int, bytes, bool] | None
) -> None:
    for _ in range(2):  # the second time from memory
        read = read_status_line(line)

        assert ours == (read and (read.status, read.reason, read.is_old))


def test_an_api_that_invents_phrases_fills_no_memory() -> None:
    for number in range(3 * LINES_KEPT):
        line = read_status_line(b"HTTP/1.1 200 phrase %d" % number)

        assert line is not None
        assert line.reason == b"phrase %d" % number


def head(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    read = read_response_head(b"\r\n".join([first, *lines, b"", b""]))
    assert read is not None
    return read


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        pytest.param([], False, id="none"),
        pytest.param([b"Content-Length: 1"], True, id="length"),
        pytest.param([b"CONTENT-LENGTH:1"], True, id="in capitals"),
        pytest.param([b"content-lengtx: 1"], False, id="as long as a length"),
        pytest.param([b"content-lengtx: 1", b"Content-Length: 1"], True, id="length among others"),
        pytest.param([b"A: Content-Length: 1"], False, id="in a value"),
        pytest.param([b"Transfer-Encoding: chunked"], False, id="coding"),
    ],
)
def test_the_length_of_a_body_is_told_by_one_header(lines: list[bytes], *, told: bool) -> None:
    assert head(*lines).passed_back.has_length is told


@pytest.mark.parametrize(
    ("codings", "first", "plain"),
    [
        pytest.param([b" Chunked "], b"HTTP/1.1 200 OK", True, id="chunked"),
        pytest.param([b"chunked"], b"HTTP/1.0 200 OK", False, id="in 1.0"),
        pytest.param([b"chunked", b"chunked"], b"HTTP/1.1 200 OK", False, id="twice"),
        pytest.param([b"gzip"], b"HTTP/1.1 200 OK", False, id="gzip"),
        pytest.param([b"gzip, chunked"], b"HTTP/1.1 200 OK", False, id="gzip in chunks"),
    ],
)
def test_a_body_comes_as_it_is(codings: list[bytes], first: bytes, *, plain: bool) -> None:
    lines = [b"Transfer-Encoding:" + coding for coding in codings]

    assert head(*lines, first=first).is_plain is plain


class Taken:
    """What llhttp makes of the same bytes."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.reason = b""
        self.is_whole = False

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.is_whole = True


PIECES = st.sampled_from(
    [
        b"A: b", b"Content-Length: 0", b"CONNECTION: close", b"Set-Cookie: a=b; c", b":", b" ",
        b"\t", b"\r\n", b"\r", b"\n", b"\0", b"\xff", b"x", b"Transfer-Encoding: chunked",
    ]
)  # fmt: skip


@given(pieces=st.lists(PIECES, max_size=12), before=st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]))
@example(pieces=[b"A: b", b"\r\n", b" c"], before=b"")
@example(pieces=[b"A: b", b"\n", b"c: d"], before=b"")
@example(pieces=[b"A: ", b"\t", b"b", b" ", b"\t"], before=b"\r\n")
def test_a_head_that_llhttp_takes_says_the_same_to_us(pieces: list[bytes], before: bytes) -> None:
    data = before + b"HTTP/1.1 200 OK\r\n" + b"".join(pieces) + b"\r\n\r\n"
    taken = Taken()
    parser = httptools.HttpResponseParser(taken)
    with suppress(httptools.HttpParserError):  # of what comes after it, or it does not become whole
        parser.feed_data(data)
    if not taken.is_whole:
        return

    read = read_response_head(data)

    assert read is not None
    assert (read.line.status, read.line.reason) == (parser.get_status_code(), taken.reason)
    assert read.headers == taken.headers


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "at"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", 0, id="none"),
        pytest.param(EARLY, None, id="one, and nothing behind it"),
        pytest.param(EARLY + b"HTTP/1.1 2", len(EARLY), id="one"),
        pytest.param(b"\r\n" + EARLY * 3 + b"\r\nHTTP/1.1 2", 4 + 3 * len(EARLY), id="several"),
        pytest.param(EARLY + b"HTTP/1.1 ", None, id="perhaps another one"),
        pytest.param(b"\r", None, id="half an empty line"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"SSH-2", 0, id="another protocol"),
        pytest.param(b"HTTP/2.0 1", 0, id="another version"),
    ],
)
def test_the_final_answer_begins_behind_interim_ones(data: bytes, at: int | None) -> None:
    assert skip_interim(data) == at


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 101 Switching\r\n\r\n", id="101"),
        pytest.param(b"HTTP/1.1 1000 OK\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 100 OK\n", id="bare LF"),
        pytest.param(b"HTTP/1.1 100 OK\r\nA: b\rC", id="bare CR"),
        pytest.param(b"HTTP/1.1 100 OK\r\nHTTP/1.1 200 OK\r\n\r\n", id="a status line in it"),
        pytest.param(b"HTTP/1.1 100 OK\r\nA: b\0\r\n\r\n", id="NUL"),
        pytest.param(b"HTTP/1.1 100 OK\r\nA: chun\x05ed\r\n\r\n", id="a control in a value"),
        pytest.param(b"HTTP/1.1 100 OK\r\nContent-Length : 3\r\n\r\n", id="a blank in a name"),
        pytest.param(b"HTTP/1.1 100 OK\r\n: b\r\n\r\n", id="no name"),
    ],
)
def test_an_interim_answer_that_is_malformed_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="interim response is malformed"):
        skip_interim(data)
