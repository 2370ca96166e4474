"""Conversations with an API that fails: what the caller is told, and what is left behind.

How often a request is sent is the business of `test_faults`; certificates are in
`test_upstream_tls`, the circuit breaker in `test_circuit`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from icr_proxy.upstream.dialer import parse_address
from tests.integration.test_upstream_tls import serving
from tests.support.app_fixture import (
    Visit,
    call,
    config_for,
    ok,
    read_answer,
    request_head,
    running,
)
from tests.support.certificate_authority import server_certificate
from tests.support.failing import (
    CHUNKED,
    UNTIL_CLOSE,
    WITH_LENGTH,
    Run,
    for_read_and_write,
    on_both_loops,
    plainly,
    settled,
    stage,
    until_gone,
)

# -- no connection --------------------------------------------------------------------------------


@for_read_and_write
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://127.0.0.1:9", id="refused"),
        pytest.param("http://nowhere.invalid", id="no such name"),
    ],
)
async def test_an_api_that_cannot_be_reached_is_told_as_such(url: str, method: str) -> None:
    async with stage(plainly) as (proxy, api):
        proxy.app.outbound.pool._address = parse_address(url, ca_file=None)

        answer = await call(proxy.port, request_head(method))

        assert (answer.status, answer.problem["code"]) == (502, "upstream-unreachable")
        assert api.heads == []


async def test_without_a_token_it_is_the_same() -> None:
    async with running(config_for("http://127.0.0.1:9")) as proxy:
        proxy.app.credentials.tokens._sleep = None  # nobody waits for the failure to pass
        answer = await call(proxy.port, request_head())

        assert (answer.status, answer.problem["code"]) == (502, "upstream-unreachable")


# -- no answer ------------------------------------------------------------------------------------


@on_both_loops
@for_read_and_write
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="before the head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConte", id="in the head"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n", id="after an interim answer"),
        pytest.param(b"\0\1 nonsense\r\n\r\n", id="after garbage"),
    ],
)
def test_an_api_that_breaks_off_is_told_as_broken_and_not_asked_again(
    run: Run, said: bytes, how: str, method: str
) -> None:
    async def scene() -> None:
        async def script(visit: Visit, _head: bytes) -> None:
            await visit.say(said)
            if how == "reset":
                visit.reset()
            else:
                visit.writer.close()

        async with stage(script) as (proxy, api):
            answer = await call(proxy.port, request_head(method))

            assert (answer.status, answer.problem["code"]) == (502, "upstream-broken")
            assert len(api.heads) == 1

    run(scene())


# -- half an answer -------------------------------------------------------------------------------

CUTS = [
    pytest.param(WITH_LENGTH, "close", False, id="length, closed"),
    pytest.param(WITH_LENGTH, "reset", False, id="length, reset"),
    pytest.param(CHUNKED, "close", False, id="chunked, closed"),
    pytest.param(CHUNKED, "reset", False, id="chunked, reset"),
    pytest.param(CHUNKED + b"nonsense", "hold", False, id="malformed chunk"),
    pytest.param(UNTIL_CLOSE, "reset", False, id="until close, reset"),
    pytest.param(WITH_LENGTH, "goodbye", True, id="TLS, length, close_notify"),
    pytest.param(WITH_LENGTH, "close", True, id="TLS, length, closed"),
    pytest.param(CHUNKED, "goodbye", True, id="TLS, chunked, close_notify"),
    pytest.param(UNTIL_CLOSE, "close", True, id="TLS, until close, no close_notify"),
    pytest.param(UNTIL_CLOSE, "reset", True, id="TLS, until close, reset"),
]


def end(visit: Visit, how: str) -> None:
    if how == "reset":
        visit.reset()
    elif how == "close":
        visit.writer.transport.abort()  # a FIN, and over TLS no close_notify before it
    elif how == "goodbye":
        visit.writer.close()


@on_both_loops
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(("said", "how", "tls"), CUTS)
def test_a_body_that_was_cut_off_never_looks_complete(
    run: Run, said: bytes, how: str, version: str, tmp_path: Path, *, tls: bool
) -> None:
    """To a caller of HTTP/1.0, to whom the end of the connection is the end of the body, too."""

    async def scene() -> None:
        seen, over = asyncio.Event(), asyncio.Event()

        async def script(visit: Visit, _head: bytes) -> None:
            await visit.say(said)
            await seen.wait()
            end(visit, how)
            await over.wait()

        context = serving(server_certificate(), tmp_path) if tls else None
        async with stage(script, tls=context, folder=tmp_path) as (proxy, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request_head().replace(b"HTTP/1.1", b"HTTP/" + version.encode()))
            if how != "hold":
                await reader.readuntil(b"hello")
            seen.set()
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(10):
                    await reader.read()
            writer.close()
            over.set()
            assert proxy.log("request.done")[-1]["code"] == "upstream-broken"

    run(scene())


@on_both_loops
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_over_tls_a_body_until_close_is_whole_after_a_goodbye(
    run: Run, version: str, tmp_path: Path
) -> None:
    async def scene() -> None:
        async def script(visit: Visit, _head: bytes) -> None:
            await visit.say(UNTIL_CLOSE)
            visit.writer.close()

        context = serving(server_certificate(), tmp_path)
        async with stage(script, tls=context, folder=tmp_path) as (proxy, _):
            request = request_head().replace(b"HTTP/1.1", b"HTTP/" + version.encode())
            answer = await call(proxy.port, request)

            assert answer.body == b"hello"

    run(scene())


# -- too early, too much --------------------------------------------------------------------------


@on_both_loops
def test_an_answer_during_the_upload_is_passed_on_and_ends_it(run: Run) -> None:
    async def scene() -> None:
        ended = asyncio.Event()

        async def script(visit: Visit, _head: bytes) -> None:
            await visit.reader.readexactly(5)
            await visit.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await until_gone(visit)
            ended.set()

        async with stage(script) as (proxy, api):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request_head("POST", extra="Content-Length: 1000000\r\n") + b"begin")
            answer = await read_answer(reader)
            async with asyncio.timeout(10):
                await ended.wait()

            assert (answer.status, answer.body) == (413, b"no")
            assert answer.values(b"Connection") == [b"close"]
            assert proxy.app.outbound.pool.idle == 0
            assert proxy.metric("upstream_closes_total", reason="unsent") == 1
            assert len(api.heads) == 1
            writer.close()

    run(scene())


@on_both_loops
@pytest.mark.parametrize(
    "surplus",
    [
        pytest.param(ok(b"stolen"), id="a second answer"),
        pytest.param(b"surplus", id="surplus bytes"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsto", id="half an answer"),
    ],
)
@pytest.mark.parametrize("when", ["with the answer", "afterwards"])
def test_what_nobody_asked_for_reaches_nobody(run: Run, surplus: bytes, when: str) -> None:
    """The next request may be another organization's."""

    async def scene() -> None:
        first: list[Visit] = []

        async def script(visit: Visit, head: bytes) -> None:
            if not first:
                first.append(visit)
                await visit.say(ok(b"one") + (surplus if when == "with the answer" else b""))
            else:
                await visit.say(ok(b"two" if b"/two" in head else b"?"))

        async with stage(script) as (proxy, _):
            one = await call(proxy.port, request_head(target="/one", tag="inst-1"))
            if when == "afterwards":
                await first[0].say(surplus)
            two = await call(proxy.port, request_head(target="/two", tag="inst-2"))

            assert (one.body, two.body) == (b"one", b"two")
            await settled(proxy)
            assert proxy.metric("upstream_closes_total", reason="dirty") == 1

    run(scene())
