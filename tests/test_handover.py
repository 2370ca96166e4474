"""aiohttp gets its record of a request; the bytes are in it as they came."""

from __future__ import annotations

from aiohttp import HttpVersion10, HttpVersion11

from proxy.handover import message_of
from proxy.requesthead import HeadRules, read_head

RULES = HeadRules(uri=100, headers=200, tag="X-Tag")


def test_a_message_holds_what_was_received() -> None:
    head = read_head(
        b"POST //x? HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: \xff\r\n\r\n",
        RULES,
    )
    message = message_of(head)

    assert (message.method, message.path, message.version) == ("POST", "//x?", HttpVersion11)
    assert message.raw_headers == tuple(head.headers)
    assert message.headers["x"] == "\udcff"
    assert message.chunked
    assert not message.should_close


def test_old_callers_are_known_as_such() -> None:
    message = message_of(read_head(b"GET / HTTP/1.0\r\n\r\n", RULES))

    assert (message.version, message.should_close, message.chunked) == (HttpVersion10, True, False)
