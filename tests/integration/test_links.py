"""Answers that point at the API, followed by callers that can reach only the proxy."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from icr_proxy.config.inbound_models import HeadersConfig, PolicyConfig, TlsConfig
from tests.support.app_fixture import (
    Visit,
    call,
    config_for,
    proxy_before,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)
from tests.support.certificate_authority import authority, server_certificate, trusting
from tests.support.program import GUARD_SECONDS, program_before

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator

ON = HeadersConfig(rewrite_links=True)
REDIRECT = "/_emulator/redirect?to=/_emulator/echo/x"


async def curl(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sSL", *words, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(GUARD_SECONDS):
        out, _ = await process.communicate()
    return out.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
@pytest.mark.parametrize("tag", ["header", "path"])
async def test_curl_follows_a_redirect_of_the_api_through_the_proxy(
    emulator: Emulator, tmp_path: Path, tag: str
) -> None:
    installation = next(iter(emulator.world.installations))
    more = {"ICR_PROXY_HEADERS__REWRITE_LINKS": "true", "ICR_PROXY_LISTENERS__0__TAGS": tag}
    async with program_before(emulator, tmp_path, **more) as program:
        if tag == "path":
            said = await curl(f"{program.url}/~{installation}{REDIRECT}")
        else:
            said = await curl(
                "-H", f"X-ICR-Installation-Id: {installation}", program.url + REDIRECT
            )

    assert json.loads(said)["installationId"] == installation
    assert json.loads(said)["target"] == "/_emulator/echo/x"


async def test_links_are_left_alone_unless_asked_for(emulator: Emulator) -> None:
    head = request_head(target=REDIRECT, tag=next(iter(emulator.world.installations)))
    async with proxy_before(emulator) as proxy:
        before = await call(proxy.port, head)
        on = config_for(
            emulator.base_url, app_id=emulator.app_id, key=emulator.private_key_pem, headers=ON
        )
        proxy.app.reload(lambda: on)
        after = await call(proxy.port, head.replace(b"localhost", b"localhost:8080"))

    assert before.values(b"Location") == [f"{emulator.base_url}/_emulator/echo/x".encode()]
    assert after.values(b"Location") == [b"http://localhost:8080/_emulator/echo/x"]


async def test_a_tool_that_takes_us_for_its_http_proxy_stays_with_the_apis_own_name(
    emulator: Emulator,
) -> None:
    async with proxy_before(emulator, headers=ON) as proxy:
        target = emulator.base_url + REDIRECT
        tag = next(iter(emulator.world.installations))
        answer = await call(proxy.port, request_head(target=target, tag=tag))

    assert answer.values(b"Location") == [f"{emulator.base_url}/_emulator/echo/x".encode()]


async def test_behind_tls_a_link_leads_back_over_tls(emulator: Emulator, tmp_path: Path) -> None:
    cert, key = server_certificate().write(tmp_path)
    listener = {"tls": TlsConfig(cert=cert, key=key)}
    tag = next(iter(emulator.world.installations))
    async with proxy_before(emulator, headers=ON, listener=listener) as proxy:
        trust = trusting(authority(), folder=tmp_path)
        reader, writer = await asyncio.open_connection("localhost", proxy.port, ssl=trust)
        writer.write(request_head(target=REDIRECT, tag=tag))
        answer = await read_answer(reader)
        writer.close()

    assert answer.values(b"Location") == [b"https://localhost/_emulator/echo/x"]


async def test_every_header_and_no_body_is_rewritten() -> None:
    async def script(visit: Visit, head: bytes) -> None:
        host = head.partition(b"Host: ")[2].split(b"\r\n")[0]
        url = b"http://" + host + b"/x"
        await visit.say(
            b"HTTP/1.1 200 OK\r\nLocation: %b\r\nlink: <%b>; rel=a, <%b>; rel=b\r\n"
            b"Content-Location: %b\r\nX-Other: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (url, url, url, url, url, len(url), url)
        )

    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, headers=ON)) as proxy,
    ):
        answer = await call(proxy.port, request_head())

    there, here = f"{api.url}/x".encode(), b"http://localhost/x"
    assert answer.values(b"Location") == [here]
    assert answer.values(b"Link") == [b"<%b>; rel=a, <%b>; rel=b" % (here, here)]
    assert answer.values(b"Content-Location") == [here]
    assert answer.values(b"X-Other") == [there]
    assert answer.body == there


async def test_an_answer_that_is_given_again_leads_to_where_this_caller_is() -> None:
    async def script(visit: Visit, head: bytes) -> None:
        host = head.partition(b"Host: ")[2].split(b"\r\n")[0]
        await visit.say(
            b"HTTP/1.1 201 Created\r\nLocation: http://%b/1\r\nContent-Length: 0\r\n\r\n" % host
        )

    head = request_head("POST", extra="Content-Length: 0\r\nIdempotency-Key: k\r\n")
    policy = PolicyConfig(duplicate_guard=60.0)
    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, headers=ON, policy=policy)) as proxy,
    ):
        first = await call(proxy.port, head)
        again = await call(proxy.port, head.replace(b"localhost", b"127.0.0.1:1"))

    assert first.values(b"Location") == [b"http://localhost/1"]
    assert again.values(b"Location") == [b"http://127.0.0.1:1/1"]
    assert again.values(b"Idempotency-Replayed") == [b"true"]
