"""The story of one request, told by what caller, API, log and metrics see of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from icr_proxy.config.inbound_models import LimitsConfig, PolicyConfig
from icr_proxy.config.models import TimeoutsConfig
from icr_proxy.errors import (
    BadRequestError,
    CallerGoneError,
    DrainingError,
    OverloadedError,
    ProxyError,
)
from icr_proxy.forwarding.handler import Handler
from icr_proxy.server.limits import InFlight
from icr_proxy.server.request import Request
from tests.support.app_fixture import (
    RunningProxy,
    ScriptedUpstream,
    Visit,
    call,
    config_for,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)

Script = Callable[[Visit, bytes], Awaitable[None]]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def stage(
    script: Script, **sections: Any
) -> AsyncIterator[tuple[RunningProxy, ScriptedUpstream]]:
    async with scripted_upstream(script) as api, running(config_for(api.url, **sections)) as proxy:
        yield proxy, api


async def plainly(visit: Visit, _head: bytes) -> None:
    await visit.say(ok(b"done"))


# -- the whole story ------------------------------------------------------------------------------


async def test_a_request_goes_through_with_the_token_of_its_installation() -> None:
    async with stage(plainly) as (proxy, api):
        answer = await call(proxy.port, request_head(tag="inst-1"))

    assert (answer.status, answer.body) == (200, b"done")
    [head] = api.heads
    assert b"\r\nAuthorization: Bearer crs_" in head
    assert b"\r\nx-icr-api-version: 2023-06-16\r\n" in head
    assert b"inst-1" not in head


async def test_the_outcome_is_logged_in_full_and_without_secrets() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(await visit.reader.readexactly(5)))

    extra = "Content-Length: 5\r\nAuthorization: Bearer mine\r\nX-Request-Id: id-1\r\n"
    async with stage(script) as (proxy, _):
        request = request_head("POST", "/v1/retire?secret=query", extra=extra)
        await call(proxy.port, request + b"hello")

        [line] = proxy.log("request.done")
        everything = proxy.stream.getvalue()

    assert line["method"] == "POST"
    assert line["path"] == "/v1/retire"
    assert line["operation"] == "v1.retire"
    assert line["installation"] == "inst-1"
    assert line["request_id"] == "id-1"
    assert (line["status"], line["origin"], line["code"]) == (200, "upstream", None)
    assert (line["bytes_in"], line["bytes_out"], line["attempts"]) == (5, 5, 1)
    for secret in (b"crs_", b"mine", b"query", b"hello"):
        assert secret not in everything


async def test_the_token_of_one_installation_never_goes_with_the_request_of_another() -> None:
    seen: dict[bytes, set[bytes]] = {}

    async def script(visit: Visit, head: bytes) -> None:
        name = head.split(b" ")[1]
        token = head.partition(b"Authorization: ")[2].split(b"\r\n")[0]
        seen.setdefault(name, set()).add(token)
        await visit.say(ok(token))

    async with stage(script) as (proxy, _):
        answers = await asyncio.gather(
            *(
                call(proxy.port, request_head(target=f"/{n % 10}", tag=f"inst-{n % 10}"))
                for n in range(200)
            )
        )

    assert all(len(tokens) == 1 for tokens in seen.values())
    assert len({token for tokens in seen.values() for token in tokens}) == 10
    assert {answer.body for answer in answers} == {t for tokens in seen.values() for t in tokens}


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(request_head(tag=None), "installation-required", id="no tag"),
        pytest.param(request_head(tag="undefined"), "installation-invalid", id="bad tag"),
        pytest.param(request_head(target="/app"), "endpoint-refused", id="/app"),
        pytest.param(
            request_head(extra="Connection: upgrade\r\nUpgrade: websocket\r\n"),
            "not-implemented",
            id="websocket",
        ),
        pytest.param(
            request_head(extra="x-icr-api-version: 1\r\nx-icr-api-version: 2\r\n"),
            "bad-request",
            id="two versions",
        ),
    ],
)
async def test_a_refusal_reaches_nobody_and_keeps_the_connection(
    request_: bytes, code: str
) -> None:
    async with stage(plainly) as (proxy, api):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_ + request_head())
        refusal = await read_answer(reader)
        answer = await read_answer(reader)
        writer.close()

        assert refusal.problem["code"] == code
        assert refusal.problem["requestId"].encode() == refusal.values(b"X-Request-Id")[0]
        assert answer.body == b"done"
        assert len(api.heads) == 1
        line = proxy.log("request.done")[0]
        assert (line["origin"], line["code"], line["status"]) == ("proxy", code, refusal.status)
        assert proxy.metric("refusals_total", code=code) == 1


async def test_an_offer_of_h2c_is_passed_over() -> None:
    """Java's HttpClient makes it on every plain connection."""
    extra = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    async with stage(plainly) as (proxy, api):
        answer = await call(proxy.port, request_head(extra=extra))

    assert answer.body == b"done"
    assert b"pgrade" not in api.heads[0]
    assert b"HTTP2-Settings" not in api.heads[0]


@pytest.mark.parametrize(
    ("method", "status"),
    [("GET", 200), ("HEAD", 200), ("OPTIONS", 200), ("POST", 403), ("DELETE", 403), ("PUT", 403)],
)
async def test_read_only_refuses_every_change(method: str, status: int) -> None:
    policy = PolicyConfig(read_only=True)
    async with stage(plainly, policy=policy) as (proxy, api):
        answer = await call(proxy.port, request_head(method))

    assert answer.status == status
    if status == 403:
        assert answer.problem["code"] == "policy-denied"
    assert len(api.heads) == (status == 200)


async def test_an_unexpected_error_is_a_bland_500_and_its_text_stays_inside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("crs_secret")

    async with stage(plainly) as (proxy, _):
        monkeypatch.setattr(proxy.app.inbound.handlers[0].rules.router, "choose_key", crash)
        answer = await call(proxy.port, request_head())

        assert answer.status == 500
        assert answer.problem["code"] == "internal"
        assert b"crs_secret" not in answer.body + proxy.stream.getvalue()
        [line] = proxy.log("request.crashed")
        assert line["error"] == "RuntimeError"
        assert line["request_id"] == answer.problem["requestId"]
        assert proxy.app.inbound.in_flight.count == 0  # its place is given back


# -- how much at a time ---------------------------------------------------------------------------


async def test_more_than_may_be_in_flight_is_refused_and_does_not_queue() -> None:
    held = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        await held.wait()
        await visit.say(ok(b"done"))

    async with stage(script, limits=LimitsConfig(in_flight=2)) as (proxy, api):
        waiting = [asyncio.ensure_future(call(proxy.port, request_head())) for _ in range(2)]
        while len(api.heads) < 2:  # noqa: ASYNC110  # the upstream tells nobody
            await asyncio.sleep(0)

        refused = await call(proxy.port, request_head())
        held.set()
        served = await asyncio.gather(*waiting)
        again = await call(proxy.port, request_head())

    assert refused.status == 503
    assert refused.problem["code"] == "overloaded"
    assert refused.values(b"Retry-After") == [b"1"]
    assert {answer.status for answer in (*served, again)} == {200}


async def test_there_are_so_many_places_and_no_more() -> None:
    in_flight = InFlight()

    in_flight.acquire(1)
    with pytest.raises(OverloadedError):
        in_flight.acquire(1)
    counted = in_flight.count
    in_flight.release()
    await in_flight.until_idle()

    assert (counted, in_flight.count) == (1, 0)


def test_a_proxy_that_is_shut_begins_nothing() -> None:
    async def scene() -> None:
        in_flight = InFlight()
        in_flight.shut = True
        with pytest.raises(DrainingError):
            in_flight.acquire(1)

    asyncio.run(scene())


async def test_a_request_that_takes_longer_than_the_total_is_a_timeout() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.reader.read()

    timeouts = TimeoutsConfig(total=0.1)
    async with stage(script, upstream={"timeouts": timeouts}) as (proxy, _):
        answer = await call(proxy.port, request_head())

        assert answer.status == 504
        assert answer.problem["code"] == "upstream-timeout"
        assert proxy.app.outbound.pool.active == 0


async def test_a_download_that_takes_longer_than_the_total_breaks_off() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(CHUNKED + b"5\r\nhello\r\n")
        await visit.reader.read()

    timeouts = TimeoutsConfig(total=0.1)
    async with stage(script, upstream={"timeouts": timeouts}) as (proxy, _):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await call(proxy.port, request_head())

        [line] = proxy.log("request.done")
        assert (line["status"], line["code"]) == (200, "upstream-timeout")


# -- callers that leave ---------------------------------------------------------------------------


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("phase", ["minting", "waiting", "uploading", "downloading"])
def test_a_caller_that_leaves_ends_the_request_to_the_api(
    run: Callable[[Awaitable[None]], None], phase: str, how: str
) -> None:
    async def scene() -> None:
        reached, ended = asyncio.Event(), asyncio.Event()

        async def script(visit: Visit, _head: bytes) -> None:
            if phase == "downloading":
                await visit.say(CHUNKED + b"5\r\nhello\r\n")
            reached.set()
            try:
                while await visit.reader.read(65536):
                    pass
            except ConnectionError:
                pass
            ended.set()

        async with stage(script) as (proxy, api):
            if phase == "minting":
                reached.set()
            await leave(proxy, phase=phase, how=how, reached=reached)
            async with asyncio.timeout(5):
                if phase != "minting":
                    await ended.wait()
                while not proxy.log("request.done"):  # noqa: ASYNC110  # a log tells nobody
                    await asyncio.sleep(0.005)

            [line] = proxy.log("request.done")
            assert (line["status"], line["code"]) == (499, "caller-gone")
            assert proxy.app.outbound.pool.active <= (phase == "minting")
            assert proxy.app.inbound.in_flight.count == 0
            assert len(api.heads) == (phase != "minting")

    run(scene())


async def leave(proxy: RunningProxy, *, phase: str, how: str, reached: asyncio.Event) -> None:
    """Begin a request and be gone in the middle of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    uploading = phase == "uploading"
    length = "Content-Length: 1000\r\n" if uploading else ""
    writer.write(request_head("POST", extra=length) + (b"half" if uploading else b""))
    if phase == "minting":
        while not proxy.app.credentials.tokens.minting:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0)
    await reached.wait()
    if phase == "downloading":
        await reader.readuntil(b"hello")
    if how == "reset":
        Visit(0, reader, writer).reset()
    else:
        writer.close()


async def test_a_mint_outlives_the_caller_that_asked_for_it() -> None:
    """Others may be waiting for it, and the next one will be glad of it."""
    async with stage(plainly) as (proxy, api):
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head())
        while not proxy.app.credentials.tokens.minting:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0)
        writer.close()
        answer = await call(proxy.port, request_head())

    assert answer.body == b"done"
    assert api.mints == 1


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(CallerGoneError("left"), id="found out while reading"),
        pytest.param(BadRequestError("no"), id="found out while answering"),
    ],
)
async def test_a_caller_that_is_gone_gets_no_refusal(
    error: ProxyError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave_and_fail(_: Handler, request: Request, *__: object) -> None:
        assert request.transport is not None
        request.transport.close()
        raise error

    monkeypatch.setattr(Handler, "_decide", leave_and_fail)
    async with stage(plainly) as (proxy, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head())
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()

        [line] = proxy.log("request.done")
        assert (line["status"], line["code"]) == (499, "caller-gone")


# -- what the API does ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code", "status"),
    [
        pytest.param(b"", "upstream-broken", 502, id="nothing"),
        pytest.param(b"garbage\r\n\r\n", "upstream-broken", 502, id="garbage"),
        pytest.param(
            b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: y\r\n\r\n",
            "upstream-broken",
            502,
            id="101",
        ),
    ],
)
async def test_an_api_that_makes_no_sense_is_a_bad_gateway(
    said: bytes, code: str, status: int
) -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(said)
        visit.writer.close()

    async with stage(script) as (proxy, _):
        answer = await call(proxy.port, request_head())

    assert answer.status == status
    assert answer.problem["code"] == code


async def test_an_api_that_does_not_answer_is_a_gateway_timeout() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.reader.read()

    timeouts = TimeoutsConfig(first_byte=0.1)
    async with stage(script, upstream={"timeouts": timeouts}) as (proxy, _):
        answer = await call(proxy.port, request_head("POST"))

    assert answer.status == 504
    assert answer.problem["code"] == "upstream-timeout"


async def test_a_body_that_breaks_off_is_logged_as_such() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(CHUNKED + b"5\r\nhello\r\n")
        visit.writer.close()

    async with stage(script) as (proxy, _):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await call(proxy.port, request_head())
        await proxy.app.inbound.in_flight.until_idle()

        [line] = proxy.log("request.done")
        assert (line["status"], line["origin"]) == (200, "upstream")
        assert line["code"] == "upstream-broken"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_slow_caller_cannot_reach_into_the_request_of_another(
    run: Callable[[Awaitable[None]], None],
) -> None:
    """The connection to the API serves the next one while the first still reads its answer."""
    size = 3 * 1024 * 1024
    go = asyncio.Event()

    async def script(visit: Visit, head: bytes) -> None:
        if b"/first" in head:
            await visit.say(ok(bytes(size)))
        else:
            await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsec")
            await go.wait()
            await visit.say(b"ond")

    async def scene() -> None:
        go.clear()
        async with stage(script) as (proxy, api):
            slow, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1024)
            writer.write(request_head(target="/first"))
            await slow.readuntil(b"\r\n\r\n")
            second = asyncio.ensure_future(call(proxy.port, request_head(tag="inst-2")))
            while len(api.heads) < 2:  # noqa: ASYNC110  # the upstream tells nobody
                await asyncio.sleep(0)
            assert len(await slow.readexactly(size)) == size
            go.set()

            assert (await second).body == b"second"
            writer.close()

    run(scene())
