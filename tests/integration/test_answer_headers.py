"""What the proxy adds to the API's answers: their ID, and that they are private."""

from __future__ import annotations

import asyncio

import pytest

from icr_proxy.config.inbound_models import BrowserConfig, HeadersConfig, PolicyConfig
from tests.support.app_fixture import (
    Visit,
    call,
    config_for,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)

HEADS = [
    pytest.param(b"200 OK", id="200"),
    pytest.param(b"206 Partial Content", id="206"),
    pytest.param(b"304 Not Modified", id="304"),
    pytest.param(b"404 Not Found", id="404"),
    pytest.param(b"503 Service Unavailable", id="503"),
]
ID = "X-Request-Id: mine\r\n"


@pytest.mark.parametrize("status", HEADS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_every_answer_is_private_and_has_an_id(method: str, status: bytes) -> None:
    head = b"HTTP/1.1 %b\r\nETag: x\r\nExpires: Thu, 01 Jan 2099 00:00:00 GMT\r\n" % status

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(head + b"Content-Length: 0\r\n\r\n")

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head(method, extra=ID))
        answer = await read_answer(reader, head_only=True)
        writer.close()
    [line] = proxy.log("request.done")

    assert answer.values(b"Cache-Control") == [b"private"]
    assert answer.values(b"X-Request-Id") == [b"mine"]
    assert (line["request_id"], line["upstream_request_id"]) == ("mine", None)


@pytest.mark.parametrize(
    ("said", "passed", "logged"),
    [
        pytest.param([b"theirs"], [b"theirs"], "theirs", id="one"),
        pytest.param([b"a", b"b"], [b"a", b"b"], "a, b", id="two"),
        pytest.param([b"x" * 300], [b"x" * 300], "x" * 128, id="long"),
        pytest.param([b"\x85\xff"], [b"\x85\xff"], "\\xc2\\x85\\xc3\\xbf", id="not plain"),
        pytest.param([b""], [b"mine"], None, id="empty"),
    ],
)
async def test_an_id_of_the_api_stays_and_is_logged(
    said: list[bytes], passed: list[bytes], logged: str | None
) -> None:
    lines = b"".join(b"X-Request-ID: %b\r\n" % each for each in said)

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(headers=lines + b"Cache-Control: public, max-age=9\r\n"))

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        answer = await call(proxy.port, request_head(extra=ID))
    [line] = proxy.log("request.done")

    assert answer.values(b"X-Request-Id") == passed
    assert answer.values(b"Cache-Control") == [b"public, max-age=9"]
    assert (line["request_id"], line["upstream_request_id"]) == ("mine", logged)


async def test_what_the_api_says_of_caches_passes_where_that_is_configured() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(headers=b"CDN-Cache-Control: max-age=9\r\n"))

    headers = HeadersConfig(cache_control="pass")
    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, headers=headers)) as proxy,
    ):
        answer = await call(proxy.port, request_head())

    assert answer.values(b"Cache-Control") == []
    assert answer.values(b"CDN-Cache-Control") == [b"max-age=9"]


async def test_the_proxys_own_answers_have_an_id_once() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok())

    origin = "https://page.example"
    preflight = f"Origin: {origin}\r\nAccess-Control-Request-Method: GET\r\n"
    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, browser=BrowserConfig(allow_origins=(origin,)))) as proxy,
    ):
        granted = await call(proxy.port, request_head("OPTIONS", extra=ID + preflight))
        read = await call(proxy.port, request_head(extra=ID + f"Origin: {origin}\r\n"))
        refused = await call(proxy.port, request_head(tag=None, extra=ID))

    assert granted.status == 204
    for answer in (granted, read, refused):
        assert answer.values(b"X-Request-Id") == [b"mine"]
    assert granted.values(b"Cache-Control") == []
    assert read.values(b"Cache-Control") == [b"private"]
    assert refused.values(b"Cache-Control") == [b"no-store"]


@pytest.mark.parametrize("theirs", [b"", b"X-Request-Id: theirs\r\n"])
async def test_an_answer_that_is_given_again_is_private_and_has_the_id_of_its_request(
    theirs: bytes,
) -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(headers=theirs))

    key = "Content-Length: 0\r\nIdempotency-Key: k\r\n"
    policy = PolicyConfig(duplicate_guard=60.0)
    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, policy=policy)) as proxy,
    ):
        answers = [
            await call(proxy.port, request_head("POST", extra=f"X-Request-Id: {each}\r\n{key}"))
            for each in ("one", "two")
        ]

    assert answers[1].values(b"Idempotency-Replayed") == [b"true"]
    ids = [answer.values(b"X-Request-Id") for answer in answers]
    assert ids == ([[b"theirs"], [b"theirs"]] if theirs else [[b"one"], [b"two"]])
    assert [each.values(b"Cache-Control") for each in answers] == [[b"private"], [b"private"]]
