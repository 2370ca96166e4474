"""What is remembered of header lines changes nothing about how the next request is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from icr_proxy.errors import ProxyError, UriTooLongError
from icr_proxy.http1.request_head import EVERYDAY, MAX_WRITTEN, HeaderCache, HeadRules
from icr_proxy.http1.request_parser import RequestParser
from tests.unit.http1.test_request_head import BAD_LINES

if TYPE_CHECKING:
    from icr_proxy.http1.request_head import RequestHead

RULES = HeadRules(uri=100, headers=8000, tag="X-Tag")
HOST = b"Host: a\r\nX-Tag: inst-1\r\n"
# Every method llhttp knows, in HTTP or another protocol, and what it does not know.
METHODS = [
    b"DELETE", b"GET", b"HEAD", b"POST", b"PUT", b"CONNECT", b"OPTIONS", b"TRACE", b"COPY", b"LOCK",
    b"MKCOL", b"MOVE", b"PROPFIND", b"PROPPATCH", b"SEARCH", b"UNLOCK", b"BIND", b"REBIND",
    b"UNBIND", b"ACL", b"REPORT", b"MKACTIVITY", b"CHECKOUT", b"MERGE", b"M-SEARCH", b"NOTIFY",
    b"SUBSCRIBE", b"UNSUBSCRIBE", b"PATCH", b"PURGE", b"MKCALENDAR", b"LINK", b"UNLINK", b"SOURCE",
    b"PRI", b"DESCRIBE", b"ANNOUNCE", b"SETUP", b"PLAY", b"PAUSE", b"TEARDOWN", b"GET_PARAMETER",
    b"SET_PARAMETER", b"REDIRECT", b"RECORD", b"FLUSH", b"QUERY",
    b"get", b"GETS", b"FROB", b"G", b"GET:", b"",
]  # fmt: skip
TARGETS = [
    b"/", b"/a?b=c", b"//a", b"*", b"http://a/b", b"a:1", b"a", b"/#x", b"/\xc3\xa9", b"/ ",
    b"?", b"/" + b"x" * 99, b"/" + b"x" * 100,
]  # fmt: skip
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"RTSP/1.0"]
SECTIONS = [
    HOST,
    b"",
    HOST + b"Connection: close\r\n",
    HOST + b"Connection: keep-alive\r\n",
    HOST + b"Connection: upgrade\r\nUpgrade: x\r\n",
    HOST + b"Content-Length: 0\r\n",
    HOST + b"Content-Length: 3\r\nExpect: 100-continue\r\n",
    HOST + b"Transfer-Encoding: chunked\r\n",
    HOST + b"X: " + b"x" * (MAX_WRITTEN - len(HOST) - 7) + b"\r\n",
    HOST + b"X: " + b"x" * (MAX_WRITTEN - len(HOST) - 6) + b"\r\n",
    *(HOST + line + b"\r\n" for line in BAD_LINES),
]

lines = st.builds(
    lambda *parts: b" ".join(parts),
    st.sampled_from([*EVERYDAY, *METHODS]),
    st.sampled_from([b"/", *TARGETS]),
    st.sampled_from([b"HTTP/1.1", *VERSIONS]),
)
heads = st.builds(
    lambda line, section: line + b"\r\n" + section + b"\r\n", lines, st.sampled_from(SECTIONS)
)


def read(intake: RequestParser, data: bytes) -> RequestHead | ProxyError | None:
    intake.receive(data)
    try:
        head = intake.next_head()
    except ProxyError as error:
        return error
    while intake.framing is not None:
        intake.receive(b"0\r\n\r\n" if head is not None and head.section.length is None else b"abc")
        intake.next_piece()
    return head


def must(intake: RequestParser, data: bytes) -> RequestHead:
    """Read what is fine."""
    found = read(intake, data)
    assert found is not None
    assert not isinstance(found, ProxyError)
    return found


def facts(found: RequestHead | ProxyError | None) -> object:
    """Give everything that a reading says."""
    if found is None or isinstance(found, ProxyError):
        return type(found), str(found)
    section = found.section
    return (
        found.method, found.target, found.is_last, section.headers, section.is_old, section.is_last,
        section.length, section.announced, section.expects,
    )  # fmt: skip


def head_of(line: bytes, section: bytes = HOST) -> bytes:
    return line + b"\r\n" + section + b"\r\n"


GET = head_of(b"GET / HTTP/1.1")


@given(heads, heads, st.booleans())
@example(GET, head_of(b"CONNECT / HTTP/1.1"), False)
@example(GET, head_of(b"GET / HTTP/1.0"), False)
@example(head_of(b"GET / HTTP/1.0", b""), head_of(b"GET / HTTP/1.1", b""), False)
def test_a_request_is_read_as_if_it_were_the_first(
    before: bytes,
    data: bytes,
    repeated: bool,  # noqa: FBT001
) -> None:
    intake = RequestParser(RULES)
    if repeated:
        data = data[: data.find(b"\r\n")] + before[before.find(b"\r\n") :]
    if isinstance(read(intake, before), ProxyError) or intake.is_deaf:
        return

    assert facts(read(intake, data)) == facts(read(RequestParser(RULES), data))


@given(heads, heads, st.booleans())
@example(head_of(b"GET / HTTP/1.0"), GET, True)
def test_a_request_is_read_as_if_nobody_else_had_sent_its_lines(
    before: bytes,
    data: bytes,
    repeated: bool,  # noqa: FBT001
) -> None:
    sections = HeaderCache()
    if repeated:
        data = data[: data.find(b"\r\n")] + before[before.find(b"\r\n") :]
    others = [RequestParser(RULES, sections), RequestParser(RULES, sections)]
    for other in others:
        for _ in range(2):
            read(other, before)
    intake = RequestParser(RULES, sections)

    for _ in range(3):
        fresh = RequestParser(RULES)
        fresh.is_deaf = intake.is_deaf
        assert facts(read(intake, data)) == facts(read(fresh, data))


def test_lines_that_two_connections_repeat_are_shared_until_both_have_gone() -> None:
    sections = HeaderCache()
    one, other = RequestParser(RULES, sections), RequestParser(RULES, sections)

    assert must(one, GET).section is not must(other, GET).section
    assert len(sections) == 0, "what comes once is nobody else's"
    shared = must(one, GET).section
    assert must(other, GET).section is shared
    assert must(other, head_of(b"POST /x HTTP/1.1")).section is shared
    del shared

    one.clear()
    assert len(sections) == 1
    must(other, head_of(b"GET / HTTP/1.1", HOST + b"X: y\r\n"))
    assert len(sections) == 0


@pytest.mark.parametrize(
    "differing",
    [
        pytest.param(head_of(b"GET / HTTP/1.0"), id="another version"),
        pytest.param(head_of(b"GET / HTTP/1.1", HOST.replace(b"inst-1", b"inst-2")), id="value"),
        pytest.param(head_of(b"GET / HTTP/1.1", HOST.replace(b"X-Tag", b"x-tag")), id="spelling"),
        pytest.param(head_of(b"GET / HTTP/1.1", HOST.replace(b": i", b":i")), id="white space"),
    ],
)
def test_lines_that_differ_in_a_byte_are_not_shared(differing: bytes) -> None:
    sections = HeaderCache()
    one, other = RequestParser(RULES, sections), RequestParser(RULES, sections)

    for _ in range(2):
        ours, theirs = must(one, GET), must(other, differing)

    assert ours.section is not theirs.section


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_read_as_if_it_were_the_first(method: bytes, version: bytes) -> None:
    intake = RequestParser(RULES)
    read(intake, head_of(b"GET / " + version))
    fresh = RequestParser(RULES)
    fresh.is_deaf = intake.is_deaf

    data = head_of(method + b" /x " + version)

    assert facts(read(intake, data)) == facts(read(fresh, data))


@pytest.mark.parametrize("start", [b"/", b"*", b"x"])
@pytest.mark.parametrize("byte", range(256))
def test_every_byte_of_a_target_is_read_as_if_it_came_first(byte: int, start: bytes) -> None:
    data = head_of(b"PUT %bx%cy?%c HTTP/1.1" % (start, byte, byte))
    intake = RequestParser(RULES)
    read(intake, GET)

    assert facts(read(intake, data)) == facts(read(RequestParser(RULES), data))


def test_lines_that_are_repeated_are_the_same_object_and_keep_their_notes() -> None:
    intake = RequestParser(RULES)
    first = must(intake, GET)
    again = must(intake, head_of(b"POST /x HTTP/1.1"))
    another = must(intake, head_of(b"GET / HTTP/1.1", HOST + b"X: y\r\n"))
    back = must(intake, GET)

    assert again.section is first.section
    assert another.section is not first.section
    assert back.section is not first.section


@pytest.mark.parametrize(("size", "kept"), [(MAX_WRITTEN, True), (MAX_WRITTEN + 1, False)])
def test_not_more_is_remembered_than_is_worth_it(size: int, *, kept: bool) -> None:
    filler = b"X: " + b"x" * (size - len(HOST) - len(b"X: \r\n\r\n")) + b"\r\n"
    data = head_of(b"GET / HTTP/1.1", HOST + filler)
    intake = RequestParser(RULES)
    read(intake, GET)

    first, again = must(intake, data), must(intake, data)

    assert (again.section is first.section) is kept


def test_a_target_that_is_too_long_is_refused_above_the_same_lines() -> None:
    intake = RequestParser(RULES)
    read(intake, GET)

    found = read(intake, head_of(b"GET /" + b"x" * 100 + b" HTTP/1.1"))

    assert isinstance(found, UriTooLongError)


@pytest.mark.parametrize("cut", range(1, len(GET)))
def test_the_same_lines_in_two_packets_are_the_same_lines(cut: int) -> None:
    intake = RequestParser(RULES)
    first = read(intake, GET)

    assert read(intake, GET[:cut]) is None
    assert facts(read(intake, GET[cut:])) == facts(first)


def test_what_follows_repeated_lines_is_not_lost() -> None:
    intake = RequestParser(RULES)
    intake.receive(GET * 3 + b"GET /rest")
    found = [intake.next_head(), intake.next_head(), intake.next_head(), intake.next_head()]

    assert [facts(head) for head in found[:3]] == [facts(found[0])] * 3
    assert found[3] is None
    assert intake.held == b"GET /rest"


def test_nothing_is_remembered_when_it_is_over() -> None:
    intake = RequestParser(RULES)
    read(intake, GET)
    intake.clear()

    assert intake._repeating._section is None
