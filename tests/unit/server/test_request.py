"""A handler gets the bytes as they came, and what they say about the body."""

from __future__ import annotations

from typing import Any

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.streams import EMPTY_PAYLOAD

from icr_proxy.errors import BadRequestError
from icr_proxy.http1.request_head import HeadRules, read_head
from icr_proxy.server.request import Request, unreadable

RULES = HeadRules(uri=100, headers=200, tag="X-Tag")
NOBODY: Any = None


def request(data: bytes) -> Request:
    return Request(read_head(data, RULES), NOBODY, EMPTY_PAYLOAD)


def test_a_request_holds_what_was_received() -> None:
    found = request(
        b"POST //x? HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: \xff\r\nx: 2\r\n\r\n"
    )

    assert (found.method, found.raw_path, found.version) == ("POST", "//x?", HttpVersion11)
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

    assert (found.version, found.keep_alive) == (HttpVersion10, False)


def test_what_is_no_request_has_its_turn_as_well() -> None:
    error = BadRequestError("no")
    found = unreadable(NOBODY, EMPTY_PAYLOAD, error)

    assert (found.broken, found.method, found.raw_headers) == (error, "UNKNOWN", ())
    assert (found.keep_alive, found.body_exists, found.content_length) == (False, False, None)
