"""A body ends where everybody would say that it ends, or it is malformed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.errors import BadRequestError
from icr_proxy.http1.request_head import HeadRules
from icr_proxy.http1.request_parser import Chunked, Framing, RequestParser, Sized

TRAILERS_MOST = 50


def fed(framing: Framing, *packets: bytes) -> tuple[bytes, bytes | None]:
    body, after = b"", None
    for packet in packets:
        if after is not None:
            after += packet
            continue
        piece, after = framing.feed(packet)
        body += piece
    return body, after


def chunked(*packets: bytes) -> tuple[bytes, bytes | None]:
    return fed(Chunked(trailers=TRAILERS_MOST), *packets)


def test_a_body_of_known_length_ends_there() -> None:
    assert fed(Sized(3), b"ab") == (b"ab", None)
    assert fed(Sized(3), b"a", b"bc") == (b"abc", b"")
    assert fed(Sized(3), b"abcNEXT") == (b"abc", b"NEXT")


@pytest.mark.parametrize(
    ("data", "body"),
    [
        pytest.param(b"0\r\n\r\n", b"", id="empty"),
        pytest.param(b"3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789", id="two"),
        pytest.param(b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", id="of line ends"),
        pytest.param(b'3;a;b=c;d="e \\;f"\r\nabc\r\n0;x\r\n\r\n', None, id="quoted pair"),
        pytest.param(b'3;a;b=c;d="e ;f"\r\nabc\r\n0;x\r\n\r\n', b"abc", id="extensions"),
        pytest.param(b"1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\n", b"a", id="trailers"),
    ],
)
def test_chunks_become_a_body(data: bytes, body: bytes | None) -> None:
    if body is None:
        with pytest.raises(BadRequestError):
            chunked(data)
    else:
        assert chunked(data + b"NEXT") == (body, b"NEXT")


@pytest.mark.parametrize(
    "data",
    [
        b"-3\r\n", b"+3\r\n", b"0x3\r\n", b"3_0\r\n", b" 3\r\n", b"3 \r\n", b"3\t\r\n", b"\r\n",
        b"g\r\n", b"1000000000000000\r\n", b"0000000000000003\r\n", b"3 ;x\r\n", b"3; x\r\n",
        b"3;\r\n", b"3;=\r\n", b"3;x=\r\n", b'3;x="\r\n', b"3;x\x00\r\n", b"3;x\n", b"3\n",
        b"3\ra", b"3\r\nabcd", b"3\r\nabc\n", b"3\r\nabc\r0", b"3\r\nabc0", b"3;" + b"x" * 2000,
        b"3;" + b"x" * 2000 + b"\r\n", b"0\r\nX : y\r\n", b"0\r\n X: y\r\n", b"0\r\nX\r\n",
        b"0\r\nX: \x00\r\n", b"0\r\nX: y\nZ", b"0\r\nX: y\rZ", b"0\r\n: y\r\n",
        b"0\r\nContent-Length: 1\r\n", b"0\r\nTRANSFER-ENCODING: x\r\n", b"0\r\nhost: x\r\n",
        b"0\r\nX: " + b"y" * 60, b"0\r\n" + b"X: y\r\n" * 9,
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_malformed(data: bytes) -> None:
    with pytest.raises(BadRequestError):
        chunked(data)


@given(st.lists(st.integers(1, 40), max_size=30))
def test_it_does_not_matter_how_the_bytes_arrive(cuts: list[int]) -> None:
    data = b"5;a=b\r\nhe\r\nl\r\nc\r\n" + b"x" * 12 + b"\r\n0\r\nA: b\r\nC: d\r\n\r\n"
    packets, at = [], 0
    for size in cuts:
        packets.append(data[at : at + size])
        at += size

    assert chunked(*packets, data[at:]) == (b"he\r\nl" + b"x" * 12, b"")


RULES = HeadRules(uri=100, headers=200, tag="X-Tag")
GET = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nGET /x"
CHUNKS = b"PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"
LAST = b"GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def taken(intake: RequestParser) -> list[str | bytes]:
    """Give everything that can be taken: targets as text, bodies as bytes."""
    found: list[str | bytes] = []
    while (intake.held and not intake.is_deaf) or intake.framing is not None:
        if intake.framing is not None:
            piece, is_whole = intake.next_piece()
            found.append(piece)
            if not is_whole and not intake.held:
                break
        elif head := intake.next_head():
            found.append(head.target)
        else:
            break
    return found


def joined(parts: list[str | bytes]) -> list[str | bytes]:
    """Put the pieces of each body together."""
    whole: list[str | bytes] = []
    for part in parts:
        if isinstance(part, bytes) and whole and isinstance(whole[-1], bytes):
            whole[-1] += part
        else:
            whole.append(part)
    return whole


@given(st.lists(st.integers(1, 60), max_size=12))
def test_pipelined_requests_come_in_their_order(cuts: list[int]) -> None:
    data = b"\r\n" + GET + POST + b"\r\n\r\n" + CHUNKS + GET
    intake, parts, at = RequestParser(RULES), [], 0
    for size in [*cuts, len(data)]:
        intake.receive(data[at : at + size])
        at += size
        parts += taken(intake)

    assert joined(parts) == ["/1", "/2", b"GET /x", "/3", b"GET", "/1"]


def test_nothing_follows_the_last_request() -> None:
    intake = RequestParser(RULES)
    intake.receive(LAST + GET)

    assert taken(intake) == ["/4"]
    assert intake.is_deaf


def test_what_came_before_a_mistake_is_not_lost() -> None:
    intake = RequestParser(RULES)
    intake.receive(GET + b"garbage\r\n\r\n")
    head = intake.next_head()

    assert head is not None
    assert head.target == "/1"
    with pytest.raises(BadRequestError):
        intake.next_head()


def test_after_a_malformed_body_nothing_is_understood() -> None:
    intake = RequestParser(RULES)
    intake.receive(CHUNKS.replace(b"GET\r\n0", b"GETS\r\n0"))
    intake.next_head()

    with pytest.raises(BadRequestError):
        intake.next_piece()
    assert (intake.held, intake.framing is not None, intake.is_deaf) == (b"", False, True)


def test_empty_lines_are_not_the_beginning_of_a_head() -> None:
    intake = RequestParser(RULES)
    intake.receive(b"\r\n" * 1000 + b"\r")

    assert intake.next_head() is None
    assert intake.held == b"\r"


def test_where_no_body_is_there_is_no_piece_of_it() -> None:
    with pytest.raises(RuntimeError):
        RequestParser(RULES).next_piece()
