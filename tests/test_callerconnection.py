"""What is not a request, or too much of one, gets an answer in the shape of every other refusal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from aiohttp.http_exceptions import BadHttpMessage, BadStatusLine, LineTooLong

from proxy.callerconnection import parse_error
from proxy.errors import (
    BadRequestError,
    HeadersTooLargeError,
    InstallationInvalidError,
    ProxyError,
    UriTooLongError,
)
from proxy.listeners import Listener
from proxy.servingconfig import LimitsConfig
from tests.scenes import (
    TAG,
    RawAnswer,
    RunningProxy,
    Visit,
    call,
    config_for,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)

NOWHERE = "http://127.0.0.1:9"
LIMITS = LimitsConfig(headers=4096, uri=1024)


@asynccontextmanager
async def proxy_with(limits: LimitsConfig = LIMITS) -> AsyncIterator[RunningProxy]:
    async with running(config_for(NOWHERE, limits=limits)) as proxy:
        yield proxy


async def refused(request: bytes, limits: LimitsConfig = LIMITS) -> RawAnswer:
    """Send it and check that the connection ends with the one answer to it."""
    async with proxy_with(limits) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request)
        async with asyncio.timeout(5):
            answer = await read_answer(reader)
            assert await reader.read() == b""
        writer.close()
        assert answer.values(b"Connection") == [b"close"]
        [line] = proxy.log("request.done")
        assert line["code"] == answer.problem["code"]
        assert line["status"] == answer.status
        return answer


def with_line(line: bytes) -> bytes:
    return request_head()[:-2] + line + b"\r\n\r\n"


# -- what cannot be parsed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS to a plain port"),
        pytest.param(b"nonsense\r\n\r\n", id="nonsense"),
        pytest.param(b"GET\r\n\r\n", id="no target"),
        pytest.param(b"GE\x01T / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="control in the method"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no Host"),
        pytest.param(b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", id="HTTP/3"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 without asking"),
        pytest.param(b"GET / HTTP/1.1\nHost: localhost\n\n", id="bare line feeds"),
        pytest.param(with_line(b"X-A : 1"), id="space before the colon"),
        pytest.param(with_line(b"X-A: a\x00b"), id="NUL"),
        pytest.param(with_line(b"X-A: a\rb"), id="bare CR"),
        pytest.param(with_line(b"Host: localhost"), id="two Hosts"),
        pytest.param(with_line(b"no colon"), id="no colon"),
        pytest.param(with_line(b" folded: x"), id="folded first line"),
        pytest.param(with_line(b"Content-Length: 1\r\nContent-Length: 2"), id="two lengths"),
        pytest.param(with_line(b"Content-Length: x"), id="length is no number"),
        pytest.param(with_line(b"Content-Length: -1"), id="negative length"),
        pytest.param(with_line(b"Content-Length: +1"), id="length with a sign"),
        pytest.param(
            with_line(b"Content-Length: 1\r\nTransfer-Encoding: chunked"), id="two framings"
        ),
        pytest.param(with_line(b"Transfer-Encoding: gzip"), id="coding without an end"),
        pytest.param(with_line(b"Transfer-Encoding: chunked, gzip"), id="chunked is not last"),
    ],
)
async def test_what_is_not_a_request_is_a_bad_request(request_: bytes) -> None:
    answer = await refused(request_)

    assert answer.status == 400
    assert answer.problem["code"] == "bad-request"


async def test_a_request_of_http_2_on_a_plain_line_is_refused() -> None:
    async with proxy_with() as proxy:
        answer = await call(proxy.port, request_head().replace(b"HTTP/1.1", b"HTTP/2.0"))

    assert answer.problem["code"] == "bad-request"


@pytest.mark.parametrize("value", [b"a\rb", b"a\x00b", b"inst\x0b1"])
async def test_controls_in_the_tag_are_an_invalid_installation(value: bytes) -> None:
    answer = await refused(request_head(tag=None)[:-2] + f"{TAG}: ".encode() + value + b"\r\n\r\n")

    assert answer.problem["code"] == "installation-invalid"
    assert value not in answer.body


# -- too much -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(request_head(target="/" + "a" * 1024), "uri-too-long", id="target"),
        pytest.param(request_head(target="/" + "a" * 200_000), "uri-too-long", id="endless target"),
        pytest.param(with_line(b"X: " + b"a" * 5000), "headers-too-large", id="value"),
        pytest.param(with_line(b"X" * 5000 + b": a"), "headers-too-large", id="name"),
        pytest.param(with_line(b"X: a\r\n" * 129 + b"Y: b"), "headers-too-large", id="number"),
        pytest.param(with_line(b"X: " + b"a" * 200_000), "headers-too-large", id="endless value"),
    ],
)
async def test_too_long_a_head_is_told_apart(request_: bytes, code: str) -> None:
    answer = await refused(request_)

    assert answer.problem["code"] == code
    assert answer.status == {"uri-too-long": 414, "headers-too-large": 431}[code]


async def test_all_headers_together_are_limited_too() -> None:
    async with proxy_with() as proxy:
        answer = await call(proxy.port, with_line(b"\r\n".join([b"X: " + b"a" * 500] * 9)))

    assert answer.problem["code"] == "headers-too-large"
    assert answer.status == 431


async def test_what_is_just_within_the_limits_passes() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok())

    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, limits=LIMITS)) as proxy,
    ):
        head = request_head(target="/" + "a" * 1023)
        used = sum(len(line) + 2 for line in head.split(b"\r\n")[1:-2])
        filler = b"X: " + b"a" * (4096 - used - 5)
        answer = await call(proxy.port, head[:-2] + filler + b"\r\n\r\n")

    assert answer.status == 200


def test_limits_that_are_equal_can_still_be_told_apart() -> None:
    async def scene() -> None:
        limits = LimitsConfig(headers=4096, uri=4096)
        uri = await refused(request_head(target="/" + "a" * 5000), limits)
        header = await refused(with_line(b"X: " + b"a" * 5000), limits)

        assert uri.problem["code"] == "uri-too-long"
        assert header.problem["code"] == "headers-too-large"

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("exc", "error"),
    [
        pytest.param(LineTooLong(b"GET /", 1024), UriTooLongError, id="line"),
        pytest.param(LineTooLong(b"X", 4096), HeadersTooLargeError, id="field"),
        pytest.param(BadHttpMessage("Too many headers received"), HeadersTooLargeError, id="many"),
        pytest.param(
            BadHttpMessage("Invalid header:\n\n  b'x-tag: \\x00'\n"),
            InstallationInvalidError,
            id="tag",
        ),
        pytest.param(BadStatusLine("x-tag: in the request line"), InstallationInvalidError,
                     id="tag in a line"),
        pytest.param(BadHttpMessage("Bad line"), BadRequestError, id="anything else"),
        pytest.param(ValueError("what"), BadRequestError, id="not even theirs"),
    ],
)  # fmt: skip
def test_what_the_parser_says_becomes_one_of_our_errors(
    exc: Exception, error: type[ProxyError]
) -> None:
    found = parse_error(exc, tag="x-tag", uri_limit=1024)

    assert type(found) is error
    assert "x-tag" not in found.detail


# -- connections ----------------------------------------------------------------------------------


async def test_garbage_after_a_request_is_answered_after_it() -> None:
    begun = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        begun.set()
        await visit.say(ok())

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head())
        await begun.wait()
        writer.write(b"garbage\r\n\r\n")
        first, second = await read_answer(reader), await read_answer(reader)
        rest = await reader.read()
        writer.close()

    assert (first.status, second.status) == (200, 400)
    assert rest == b""


async def test_garbage_in_the_packet_of_a_request_refuses_both() -> None:
    """A body longer than it said looks like this; nothing of it is done."""
    answer = await refused(request_head("POST", extra="Content-Length: 2\r\n") + b"{}garbage\r\n")

    assert answer.problem["code"] == "bad-request"


async def test_an_idle_connection_is_closed_in_time() -> None:
    async with proxy_with(LimitsConfig(idle_timeout=0.05)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET / HTTP/1.1\r\nHo")  # a head that never ends is idle, too
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_aiohttp_adds_no_answer_of_its_own(run: Callable[[Awaitable[None]], None]) -> None:
    """It would be taken for the answer to the caller's next request."""

    async def respond(request: Any, _error: object = None) -> Any:
        request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        raise RuntimeError("secret")

    async def scene() -> None:
        listener = Listener(
            "127.0.0.1:0",
            respond=respond,
            refuse=respond,
            limits=LimitsConfig(),
            tag=TAG,
            logger=logging.getLogger("nobody"),
        )
        await listener.open()
        port = int(listener.address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_head())
        async with asyncio.timeout(5):
            everything = await reader.read()
        writer.close()
        await listener.close()

        assert everything == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    run(scene())


async def test_a_log_that_cannot_be_written_costs_no_answer() -> None:
    def full(_outcome: object) -> None:
        raise OSError("no space left")

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(b"done"))

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        proxy.app.parts.handlers[0]._readers = (full,)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head())
        async with asyncio.timeout(5):
            answer = await read_answer(reader)
            rest = await reader.read()
        writer.close()

    assert answer.body == b"done"
    assert rest == b""
