"""What a head may say, and that we read in it what llhttp does; `test_reply` tries the bytes."""

from __future__ import annotations

from contextlib import suppress

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.answerhead import LINES_KEPT, AnswerHead, read_answer_head, read_status_line


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


def head(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> AnswerHead:
    read = read_answer_head(b"\r\n".join([first, *lines, b"", b""]), 0)
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
        pytest.param([b"chunked"], b"HTTP/1.1 103 Early", False, id="interim"),
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

    read = read_answer_head(data, 0)

    assert read is not None
    assert (read.line.status, read.line.reason) == (parser.get_status_code(), taken.reason)
    assert read.headers == taken.headers
