"""HTTP to the letter on the caller's side: what a careful client or server may rely on."""

from __future__ import annotations

import asyncio
import re

import pytest

from icr_proxy.config.inbound_models import LimitsConfig
from tests.support.app_fixture import TAG, Visit, ok, read_answer, request_head
from tests.support.wire_client import Received, Wire, statuses, wire

LAST = "Connection: close\r\n"


def lines_of(answer: bytes) -> list[bytes]:
    """Give the status line and headers of the first final answer."""
    return answer.partition(b"\r\n\r\n")[0].split(b"\r\n")


async def ask(found: Wire, method: str = "GET", target: str = "/a", *, extra: str = "") -> bytes:
    return await found.say(request_head(method, target, extra=extra + LAST))


def passed_back(lines: list[bytes]) -> list[bytes]:
    """Leave out what the proxy adds to an answer: the API says neither here."""
    ours = (b"Cache-Control: private", b"X-Request-Id: ")
    return [line for line in lines if not line.startswith(ours)]


# -- headers and targets --------------------------------------------------------------------------

HOP_BY_HOP = (
    "Connection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers, gzip\r\n"
    "Trailer: X-Sum\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\n"
    "Upgrade: h2c\r\nconnection: x-second ,, X-Third\r\nX-Second: 2\r\nx-third: 3\r\nX-Kept: 4\r\n"
)


async def test_what_is_meant_for_one_hop_ends_there_on_the_way_up() -> None:
    async with wire() as found:
        assert statuses(await ask(found, extra=HOP_BY_HOP)) == [200]

        assert found.received[0].lines == [b"X-Kept: 4"]


async def test_what_is_meant_for_one_hop_ends_there_on_the_way_down() -> None:
    async def answer(visit: Visit, _: Received) -> None:
        extra = HOP_BY_HOP.replace("Upgrade: h2c\r\n", "").encode()
        await visit.say(ok(b"x", headers=extra + b"Proxy-Authenticate: Basic\r\nVia: 1.1 api\r\n"))

    async with wire(answer) as found:
        answered = lines_of(await ask(found))

        assert passed_back(answered[1:]) == [
            b"X-Kept: 4", b"Via: 1.1 api", b"Content-Length: 1", b"Connection: close"
        ]  # fmt: skip


async def test_headers_keep_their_bytes_their_number_and_their_order_on_both_ways() -> None:
    mixed = [b"X-B: 1", b"x-a: \xe9\xff", b"X-b: 2", b"X-Empty: ", b"X-A: a\tb  c", b"X-B: 1"]

    async def answer(visit: Visit, _: Received) -> None:
        extra = b"".join(line + b"\r\n" for line in mixed)
        await visit.say(ok(b"", headers=b"Set-Cookie: a\r\n" + extra + b"set-cookie: b\r\n"))

    async with wire(answer) as found:
        extra = b"".join(line + b"\r\n" for line in mixed).decode("latin-1")
        answered = lines_of(await ask(found, extra=extra))

        assert found.received[0].lines == mixed
        assert passed_back(answered)[1:-2] == [b"Set-Cookie: a", *mixed, b"set-cookie: b"]


@pytest.mark.parametrize("reason", [b"OK", b"", b"Tr\xe8s bien", b"It is \xff  fine"])
async def test_a_reason_phrase_is_kept_as_it_is(reason: bytes) -> None:
    async def answer(visit: Visit, _: Received) -> None:
        await visit.say(b"HTTP/1.1 200 " + reason + b"\r\nContent-Length: 0\r\n\r\n")

    async with wire(answer) as found:
        assert lines_of(await ask(found))[0] == b"HTTP/1.1 200 " + reason


@pytest.mark.parametrize(
    "target",
    [
        "/a?", "/?", "/a?b=c&&d", "/a?b?c", "//a//b/", "/a;b=1/c;d", "/a/.b/..c", "/%41%2f%2F%7e",
        "/a%20b+c", "/%zz%", "/%00", "/%0d%0aX:%20y", '/a|b^c`{}<>"\\', "/:@!$&'()*+,=-._~", "/",
    ],
)  # fmt: skip
async def test_a_target_is_kept_as_it_is(target: str) -> None:
    async with wire() as found:
        assert statuses(await ask(found, target=target)) == [200]

        assert found.targets == [target.encode()]


@pytest.mark.parametrize("target", ["/\xe9", "/\u20ac".encode().decode("latin-1")])
async def test_a_target_in_raw_bytes_beyond_ascii_is_refused(target: str) -> None:
    async with wire() as found:
        assert statuses(await ask(found, target=target)) == [400]

        assert found.received == []


async def test_a_url_of_the_api_is_taken_and_overrules_the_host() -> None:
    """RFC 9112, 3.2.2."""
    async with wire() as found:
        base = found.proxy.app.config.upstream.base_url
        request = request_head(target=f"{base}/a?", extra=LAST)
        answer = await found.say(request.replace(b"localhost", b"somebody.example"))

        assert statuses(answer) == [200]
        assert found.targets == [b"/a?"]
        assert b"\r\nHost: " + base.removeprefix("http://").encode() in found.received[0].raw


@pytest.mark.parametrize("target", ["http://evil.example/a", "*", "ftp://127.0.0.1/"])
async def test_another_target_is_refused_and_the_connection_goes_on(target: str) -> None:
    async with wire() as found:
        answer = await found.say(request_head(target=target) + request_head(extra=LAST))

        assert statuses(answer) == [400, 200]
        assert found.targets == [b"/projects"]


# -- proxies on the way ---------------------------------------------------------------------------


def via_of(received: Received) -> list[bytes]:
    return re.findall(rb"\r\nVia: ([^\r]*)", received.raw)


async def test_via_names_this_process_and_what_the_caller_spoke() -> None:
    async with wire() as found:
        await ask(found, extra="Via: 1.0 fred\r\n")
        await found.say(request_head().replace(b"HTTP/1.1", b"HTTP/1.0"))

        first, own = via_of(found.received[0])
        assert first == b"1.0 fred"
        assert re.fullmatch(rb"1\.1 icr-proxy-[0-9a-f]{8}", own)
        assert via_of(found.received[1]) == [b"1.0" + own[3:]]


async def test_a_request_that_comes_back_is_a_loop() -> None:
    async with wire() as found:
        await ask(found)
        via = via_of(found.received[0])[0].decode()
        answer = await ask(found, extra=f"Via: 1.0 fred, {via}\r\n")

        assert statuses(answer) == [508]
        assert b"\r\nX-ICR-Proxy-Error: loop-detected\r\n" in answer
        assert len(found.received) == 1


async def test_one_of_us_may_stand_before_another() -> None:
    async with wire() as found:
        answer = await ask(found, extra="Via: 1.1 icr-proxy-01234567\r\n")

        assert statuses(answer) == [200]
        assert len(via_of(found.received[0])) == 2


async def test_a_request_that_may_go_no_further_is_answered_here() -> None:
    """RFC 9110, 7.6.2."""
    async with wire() as found:
        answer = await ask(found, "OPTIONS", extra="Max-Forwards: 0\r\n")

        assert statuses(answer) == [204]
        assert b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" in lines_of(answer)
        assert not re.search(rb"(?i)content-length|transfer-encoding", answer)
        assert found.received == []


async def test_a_request_that_may_go_further_may_go_one_less() -> None:
    async with wire() as found:
        await ask(found, "OPTIONS", extra="Max-Forwards: 2\r\n")
        await ask(found, "GET", extra="Max-Forwards: 0\r\n")

        assert [each.lines for each in found.received] == [
            [b"Max-Forwards: 1"], [b"Max-Forwards: 0"]
        ]  # fmt: skip


async def test_a_question_about_the_server_as_a_whole_reaches_it_as_one() -> None:
    """RFC 9112, 3.2.4."""
    async with wire() as found:
        await ask(found, "OPTIONS", "*")
        await ask(found, "OPTIONS", found.proxy.app.config.upstream.base_url)
        await ask(found, "OPTIONS", found.proxy.app.config.upstream.base_url + "/")

        assert found.targets == [b"*", b"*", b"/"]


@pytest.mark.parametrize(
    ("method", "target", "extra"),
    [
        ("TRACE", "/a", ""),
        ("TRACE", "/a", "Max-Forwards: 0\r\n"),
        ("CONNECT", "api.example:443", ""),
        ("GET", "/a", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    ],
)
async def test_what_leaves_http_is_not_implemented(method: str, target: str, extra: str) -> None:
    async with wire() as found:
        answer = await ask(found, method, target, extra=extra)

        assert statuses(answer) == [501]
        assert found.received == []


# -- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "head", "kept"),
    [
        pytest.param("HEAD", b"200 OK\r\nContent-Length: 42", b"Content-Length: 42", id="HEAD"),
        pytest.param("HEAD", b"200 OK\r\nTransfer-Encoding: chunked", b"", id="HEAD of chunks"),
        pytest.param("GET", b"304 No\r\nContent-Length: 42", b"Content-Length: 42", id="304"),
        pytest.param("GET", b"204 No", b"", id="204"),
        pytest.param("GET", b"204 No\r\nContent-Length: 0", b"", id="204 with a length"),
    ],
)
async def test_an_answer_without_a_body_tells_the_true_length(
    method: str, head: bytes, kept: bytes
) -> None:
    async def answer(visit: Visit, received: Received) -> None:
        if received.line.startswith(b"GET /last"):
            await visit.say(ok())
        else:
            await visit.say(b"HTTP/1.1 " + head + b"\r\n\r\n")

    async with wire(answer) as found:
        both = await found.say(request_head(method) + request_head(target="/last", extra=LAST))
        first, second = both.split(b"\r\n\r\n", 1)

        lines = passed_back(first.split(b"\r\n")[1:])
        assert [line for line in lines if line] == ([kept] if kept else [])
        assert second.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_interim_answers_of_the_api_are_passed_over() -> None:
    async def answer(visit: Visit, _: Received) -> None:
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        await visit.say(b"HTTP/1.1 100 Continue\r\n\r\n" + interim * 2)
        await visit.say(b"HTTP/1.1 102 Processing\r\n\r\n" + ok(b"x"))

    async with wire(answer) as found:
        answered = await ask(found)

        assert statuses(answered) == [200]
        assert b"Link" not in answered


async def test_a_caller_is_told_to_go_on_only_when_its_body_is_wanted() -> None:
    expecting = request_head("POST", extra="Expect: 100-Continue\r\nContent-Length: 3\r\n" + LAST)
    async with wire() as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.proxy.port)
        async with asyncio.timeout(5):
            writer.write(expecting)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"abc")
            assert statuses(await reader.read()) == [200]
        writer.close()

        assert found.received[0].body == b"abc"
        assert [x for x in found.received[0].lines if b"xpect" in x] == []


async def test_a_caller_whose_body_is_not_wanted_is_not_told_to_go_on() -> None:
    expecting = request_head(
        "POST", tag=None, extra="Expect: 100-continue\r\nContent-Length: 3\r\n"
    )
    async with wire() as found:
        assert statuses(await found.say(expecting)) == [400]


async def test_a_caller_of_http_1_0_is_never_told_to_go_on() -> None:
    """RFC 9110, 10.1.1."""
    head = request_head("POST", extra="Expect: 100-continue\r\nContent-Length: 3\r\n")
    async with wire() as found:
        answer = await found.say(head.replace(b"HTTP/1.1", b"HTTP/1.0"), b"abc")

        assert statuses(answer) == [200]


async def test_another_expectation_fails() -> None:
    async with wire() as found:
        answer = await ask(found, extra="Expect: miracles\r\n")

        assert statuses(answer) == [417]
        assert b"\r\nX-ICR-Proxy-Error: expectation-failed\r\n" in answer


@pytest.mark.parametrize("framing", ["Content-Length: 9999999999", "Transfer-Encoding: chunked"])
async def test_an_upload_that_is_refused_is_not_read_to_its_end(framing: str) -> None:
    limits = LimitsConfig(body=1000)
    async with wire(limits=limits) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.proxy.port)
        writer.write(request_head("POST", extra=framing + "\r\n"))
        async with asyncio.timeout(10):
            if "chunked" in framing:
                writer.write(b"3e9\r\n" + bytes(1001))
            answer = await read_answer(reader)
            with pytest.raises(ConnectionError):
                await _send_for_ever(writer)
        writer.close()

        assert answer.status == 413
        assert answer.values(b"Connection") == [b"close"]
        assert found.received == []


async def _send_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(65536))
        await writer.drain()
        await asyncio.sleep(0.005)


# -- connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"HTTP/1.1", b"HTTP/1.0", id="1.0"),
        pytest.param(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", id="close"),
    ],
)
async def test_a_caller_that_closes_costs_no_connection_to_the_api(old: bytes, new: bytes) -> None:
    async with wire() as found:
        for _ in range(5):
            answer = await found.say(request_head().replace(old, new))
            assert statuses(answer) == [200]
            assert b"\r\nConnection: close\r\n" in answer

        assert len(found.visits) == 1


async def test_a_caller_of_http_1_0_may_keep_its_connection() -> None:
    kept = request_head(extra="Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    async with wire() as found:
        answers = await found.say(kept + kept + request_head(extra=LAST))

        assert statuses(answers) == [200, 200, 200]
        assert answers.count(b"\r\nConnection: keep-alive\r\n") == 2


async def test_pipelined_requests_are_answered_in_order_whatever_becomes_of_each() -> None:
    async def answer(visit: Visit, received: Received) -> None:
        if b"/slow" in received.line:
            await asyncio.sleep(0.1)
        await visit.say(ok(received.line.split(b" ")[1] + b":" + received.body))

    async with wire(answer) as found:
        answers = await found.say(
            request_head(target="/slow")
            + request_head("POST", "/sized", extra="Content-Length: 3\r\n") + b"abc"
            + request_head(target="/untagged", tag=None)
            + request_head("PUT", "/chunks", extra="Transfer-Encoding: chunked\r\n")
            + b"2\r\nde\r\n0\r\n\r\n"
            + request_head("TRACE", "/trace")
            + request_head(target="/end", extra=LAST)
        )  # fmt: skip

        assert statuses(answers) == [200, 200, 400, 200, 501, 200]
        ours = re.findall(rb"\r\n\r\n(/[a-z]+:[a-z]*)", answers)
        assert ours == [b"/slow:", b"/sized:abc", b"/chunks:de", b"/end:"]


@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param(b"", id="missing"),
        pytest.param(b"Host: localhost\r\nHost: localhost\r\n", id="twice"),
        pytest.param(b"Host: local host\r\n", id="two words"),
        pytest.param(b"Host: localhost/\r\n", id="with a path"),
        pytest.param(b"Host: localhost:http\r\n", id="with a named port"),
    ],
)
async def test_a_request_has_one_good_host(hosts: bytes) -> None:
    """RFC 9112, 3.2."""
    async with wire() as found:
        request = request_head().replace(b"Host: localhost\r\n", hosts)

        assert statuses(await found.say(request + request_head())) == [400]
        assert found.received == []


async def test_a_request_with_a_body_and_a_get_are_the_same_to_us() -> None:
    """A body in GET has no meaning, but it has an end (RFC 9110, 9.3.1)."""
    async with wire() as found:
        body = request_head("GET", "/a", extra="Content-Length: 3\r\n") + b"abc"
        answers = await found.say(body + request_head(target="/b", extra=LAST))

        assert statuses(answers) == [200, 200]
        assert [each.body for each in found.received] == [b"abc", b""]
        assert TAG.encode() not in b"".join(each.raw for each in found.received)
