"""The judges find what they are there to find: each is shown a proxy's mistake."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fuzz.hearing import Malformed, hear
from tests.fuzz.hostile import Saying
from tests.fuzz.inbound import judge_answers, match
from tests.fuzz.outbound import judge_first, judge_second
from tests.fuzz.recorder import Seen, understand
from tests.fuzz.reference import read_strictly
from tests.fuzz.simulation import SimulatedLoop
from tests.fuzz.stage import Caller

STREAM = (
    b"POST /a HTTP/1.1\r\nHost: h\r\nX-ICR-Installation-Id: one\r\nX-A: 1\r\n"
    b"Content-Length: 3\r\n\r\nabc"
    b"GET /b HTTP/1.1\r\nHost: h\r\nX-ICR-Installation-Id: two\r\n\r\n"
)
ADDED = [
    (b"Authorization", b"Bearer x"),
    (b"x-icr-api-version", b"1"),
    (b"Via", b"1.1 icr-proxy"),
    (b"X-Request-Id", b"r"),
    (b"traceparent", b"t"),
]
HOST = (b"Host", b"api")
FIRST = Seen(
    number=0,
    method=b"POST",
    target=b"/a",
    headers=[HOST, (b"X-A", b"1"), *ADDED, (b"Content-Length", b"3")],
    body=b"abc",
    installation=b"one",
    host=b"api",
)
SECOND = Seen(1, b"GET", b"/b", [HOST, *ADDED], b"", b"two", b"api")


def found(*seen: Seen) -> list[str]:
    wrong: list[str] = []
    match(list(seen), read_strictly(STREAM).messages, wrong)
    return wrong


def test_what_was_meant_is_not_wrong() -> None:
    assert found(FIRST, SECOND) == []
    assert found(SECOND) == []
    assert found(replace(FIRST, was_refused=True), FIRST, SECOND) == []


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param([replace(FIRST, installation=b"two")], id="another token"),
        pytest.param([replace(FIRST, installation=None)], id="no token of ours"),
        pytest.param([replace(FIRST, body=b"ab")], id="a short body"),
        pytest.param([replace(FIRST, target=b"/b")], id="another target"),
        pytest.param([FIRST, FIRST], id="sent twice"),
        pytest.param([SECOND, FIRST], id="out of order"),
        pytest.param([FIRST, SECOND, SECOND], id="one too many"),
        pytest.param([replace(FIRST, headers=FIRST.headers[:1] + ADDED)], id="headers lost"),
        pytest.param([replace(SECOND, headers=[HOST, (b"X-T", b"v"), *ADDED])], id="one too many "),
        pytest.param([replace(SECOND, headers=[HOST, *ADDED, *ADDED])], id="added twice"),
        pytest.param([replace(SECOND, headers=FIRST.headers)], id="another's headers"),
        pytest.param(
            [replace(FIRST, headers=[*FIRST.headers[:-1], (b"Transfer-Encoding", b"chunked")])],
            id="another framing",
        ),
    ],
)
def test_what_nobody_meant_is_found(seen: list[Seen]) -> None:
    assert found(*seen) != []


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET", id="surplus"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\nHost: h\r\n\r\n", id="bare LF"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n"
            b"\r\n0\r\n\r\n",
            id="two framings",
        ),
    ],
)
def test_a_request_that_has_two_readings_is_none(raw: bytes) -> None:
    with pytest.raises(Exception, match=r"."):
        understand(raw)


@pytest.mark.parametrize(
    "heard",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", id="cut"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-N: 1\r\nContent-Length: 0\r\n\r\n", id="another's"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 4, id="too many"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            id="a go-ahead nobody waits for",
        ),
        pytest.param(
            b"HTTP/1.1 500 x\r\nX-ICR-Proxy-Error: internal\r\nContent-Length: 0\r\n\r\n",
            id="a crash",
        ),
    ],
)
def test_answers_that_are_not_in_order_are_found(heard: bytes) -> None:
    reading = read_strictly(STREAM)
    hearing = hear(heard, methods=[b"POST", b"GET"])

    assert judge_answers(hearing, reading, {0: 0, 1: 1}, was_reset=False) != []


@pytest.mark.parametrize(
    "heard",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 O\x06K\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_malformed_answer_is_found(heard: bytes) -> None:
    with pytest.raises(Malformed):
        hear(heard, methods=[b"GET"])


@pytest.mark.parametrize(
    ("said", "ending", "heard"),
    [
        pytest.param(b"Content-Length: 5\r\n\r\nhel", "close", b"hel", id="short and whole"),
        pytest.param(b"\r\nhel", "reset", b"hel", id="broken off and whole"),
        pytest.param(b"Content-Length: 3\r\n\r\nhel", "stay", b"poi", id="somebody else's"),
        pytest.param(b"X-A: 1\r\nContent-Length: 3\r\n\r\nhel", "stay", b"hel", id="header lost"),
    ],
)
def test_an_answer_that_nobody_gave_is_found(said: bytes, ending: str, heard: bytes) -> None:
    loop = SimulatedLoop()
    saying = Saying(b"GET", [b"HTTP/1.1 200 OK\r\n" + said], is_plain=False, ending=ending)
    caller = Caller(over=loop.create_future())
    caller.heard += b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + heard
    wrong: list[str] = []
    judge_first(saying, caller, times=1, wrong=wrong)
    loop.close()

    assert wrong != []
    assert judge_second(caller) != []
