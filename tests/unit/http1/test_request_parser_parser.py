"""Bytes become requests in their order, however they arrive; no byte belongs to two of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.errors import BadRequestError
from icr_proxy.http1.request_head import HeadRules
from icr_proxy.http1.request_parser import Intake

RULES = HeadRules(uri=100, headers=200, tag="X-Tag")
GET = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nGET /x"
CHUNKS = b"PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"
LAST = b"GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def taken(intake: Intake) -> list[str | bytes]:
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
    intake, parts, at = Intake(RULES), [], 0
    for size in [*cuts, len(data)]:
        intake.receive(data[at : at + size])
        at += size
        parts += taken(intake)

    assert joined(parts) == ["/1", "/2", b"GET /x", "/3", b"GET", "/1"]


def test_nothing_follows_the_last_request() -> None:
    intake = Intake(RULES)
    intake.receive(LAST + GET)

    assert taken(intake) == ["/4"]
    assert intake.is_deaf


def test_what_came_before_a_mistake_is_not_lost() -> None:
    intake = Intake(RULES)
    intake.receive(GET + b"garbage\r\n\r\n")
    head = intake.next_head()

    assert head is not None
    assert head.target == "/1"
    with pytest.raises(BadRequestError):
        intake.next_head()


def test_after_a_malformed_body_nothing_is_understood() -> None:
    intake = Intake(RULES)
    intake.receive(CHUNKS.replace(b"GET\r\n0", b"GETS\r\n0"))
    intake.next_head()

    with pytest.raises(BadRequestError):
        intake.next_piece()
    assert (intake.held, intake.framing is not None, intake.is_deaf) == (b"", False, True)


def test_empty_lines_are_not_the_beginning_of_a_head() -> None:
    intake = Intake(RULES)
    intake.receive(b"\r\n" * 1000 + b"\r")

    assert intake.next_head() is None
    assert intake.held == b"\r"


def test_where_no_body_is_there_is_no_piece_of_it() -> None:
    with pytest.raises(RuntimeError):
        Intake(RULES).next_piece()
