"""Secrets are planted wherever one can be, and nothing that is left behind holds any of them."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.config.inbound_models import CallerConfig
from icr_proxy.config.models import AuditConfig, LogsConfig, TracingConfig, WebhooksConfig
from icr_proxy.policy.caller_auth import hash_of
from icr_proxy.redaction import Secret
from tests.support.app_fixture import (
    MINTED,
    RawAnswer,
    RunningProxy,
    Visit,
    app_key_pem,
    call,
    config_for,
    ok,
    request_head,
    running,
    scripted_upstream,
)
from tests.support.otlp_collector import collector

if TYPE_CHECKING:
    from pathlib import Path

PLANT = "plantedsecret"
CALLER_KEY = f"icrp_{PLANT}-key"
TOKEN = "crs_" + "7" * 48
WEBHOOK_SECRET = f"{PLANT}-webhook"
AUDIT_KEY = f"{PLANT}-audit-{'k' * 32}"
NEVER = [
    pytest.param(PLANT.encode(), id="what was planted"),
    pytest.param(base64.b64encode(f"in-1:{PLANT}".encode())[:16], id="Basic credentials"),
    pytest.param(TOKEN.encode(), id="the access token"),
    pytest.param(b"7777777777", id="a part of the token"),
    pytest.param(app_key_pem().splitlines()[2].encode(), id="a line of the private key"),
    pytest.param(b"PRIVATE KEY", id="a private key's frame"),
    pytest.param(b"eyJ", id="a JWT"),
]

KEY = f"Proxy-Authorization: Bearer {CALLER_KEY}\r\n"
HEADERS = (
    f"{KEY}Authorization: Bearer {PLANT}\r\nCookie: s={PLANT}\r\nX-Api-Key: {PLANT}\r\n"
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
)
BODY = json.dumps({"comment": PLANT}).encode()
POST = f"Content-Length: {len(BODY)}\r\nContent-Type: application/json\r\n"
FORWARDED = {
    "a read": request_head(target=f"/projects?apiKey={PLANT}", extra=HEADERS),
    "a write": request_head("POST", f"/v1/retire?k={PLANT}", extra=HEADERS + POST) + BODY,
}
REFUSED = {
    "no tag": request_head(tag=None, target=f"/projects?apiKey={PLANT}", extra=HEADERS),
    "a bad tag": request_head(tag=f"in 1/{PLANT}", extra=HEADERS),
    "under /app": request_head("DELETE", f"/app/installations/token?x={PLANT}", extra=HEADERS),
    "a wrong key": request_head(extra=HEADERS.replace(CALLER_KEY, f"icrp_{PLANT}")),
    "a URL of another host": request_head(
        target=f"http://in-1:{PLANT}@other.test/?x={PLANT}", extra=HEADERS
    ),
    "not HTTP": request_head(extra=f"{HEADERS}bad header {PLANT}\r\n"),
    "a bad request line": f"GET /{PLANT} HTTP/9.9\r\nX: {PLANT}\r\n\r\n".encode(),
    "an upgrade": request_head(extra=f"{HEADERS}Connection: upgrade\r\nUpgrade: {PLANT}\r\n"),
}
ECHO = f"{PLANT} {TOKEN}".encode()
REPLIES = {
    "an echo": ok(ECHO, headers=b"X-Echo: " + ECHO + b"\r\n"),
    "an error": b"HTTP/1.1 500 " + ECHO + b"\r\nContent-Length: %d\r\n\r\n" % len(ECHO) + ECHO,
    "a redirect": b"HTTP/1.1 302 F\r\nLocation: https://x/?" + ECHO.replace(b" ", b"&")
    + b"\r\nContent-Length: 0\r\n\r\n",
    "a refused token": b"HTTP/1.1 401 U\r\nContent-Length: %d\r\n\r\n" % len(ECHO) + ECHO,
    "garbage": ECHO + b"\r\n\r\n",
    "a bad header": b"HTTP/1.1 200 OK\r\n" + ECHO + b"\r\n\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + ECHO,
    "a short body": b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + ECHO,
}  # fmt: skip


class Left:
    """Everything that the proxy left behind in all of this."""

    def __init__(self) -> None:
        self.outputs: dict[str, bytes] = {}
        self.cases = 0


async def ask(proxy: RunningProxy, request: bytes) -> RawAnswer | None:
    try:
        return await call(proxy.port, request)
    except (EOFError, ConnectionError, ValueError):
        return None  # it broke off, which is an answer, too


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    directory = tmp_path_factory.mktemp("audit")
    found = asyncio.run(leave(directory))
    for file in directory.rglob("*.jsonl"):
        found.outputs[f"audit {file.name}"] = file.read_bytes()
    return found


async def leave(directory: Path) -> Left:
    """Send every request to every kind of upstream, crash once, and gather what was left."""
    found = Left()
    replies = itertools.cycle(REPLIES.values())

    async def script(visit: Visit, head: bytes) -> None:
        if b"POST" in head:
            await visit.reader.readexactly(len(BODY))
        await visit.say(next(replies))
        raise ConnectionError

    def mint(_number: int) -> bytes:
        return ok((MINTED % 0).replace(b"crs_" + b"0" * 48, TOKEN.encode()))

    async with collector() as spans, scripted_upstream(script, mint=mint) as upstream:
        config = config_for(upstream.url, **_everything_on(directory, spans.endpoint))
        async with running(config) as proxy:
            for request in (*sorted(list(FORWARDED.values()) * len(REPLIES)), *REFUSED.values()):
                answer = await ask(proxy, request)
                found.cases += 1
                if answer is not None and answer.values(b"X-ICR-Proxy-Error"):
                    found.outputs[f"refusal {found.cases}"] = repr(answer).encode()
            await _crash(proxy)
            for page in ("/metrics", "/status", "/healthz", "/", "/nothing"):
                found.outputs[page] = await _page(proxy, page, accept="text/plain")
            found.outputs["OpenMetrics"] = await _page(
                proxy, "/metrics", accept="application/openmetrics-text"
            )
        found.outputs["log"] = proxy.stream.getvalue()
    found.outputs["spans"] = b"".join(spans.requests)
    return found


def _everything_on(directory: Path, endpoint: str) -> dict[str, Any]:
    key_file = directory / "key"
    key_file.write_text(AUDIT_KEY)
    key_file.chmod(0o600)
    return {
        "logs": LogsConfig(level="debug"),
        "tracing": TracingConfig(endpoint=endpoint, share=1.0),
        "webhooks": WebhooksConfig(bind="127.0.0.1:0", secret=Secret(WEBHOOK_SECRET)),
        "callers": (CallerConfig(name="tool", keys=(hash_of(CALLER_KEY),)),),
        "audit": AuditConfig(
            directory=directory / "trail", key_file=key_file, body_digests=True,
            redact_query=("apiKey", "k", "x"),
        ),
    }  # fmt: skip


async def _crash(proxy: RunningProxy) -> None:
    """Let a foreign exception with a secret in its text rise in the middle of a request."""

    async def open_(*_args: object) -> None:
        raise RuntimeError(f"Authorization: Bearer {TOKEN} {PLANT}")

    proxy.app.inbound.handlers[0]._forwarder.send_request = open_  # type: ignore[method-assign,assignment]  # on purpose
    answer = await call(proxy.port, FORWARDED["a read"])
    assert answer.problem["code"] == "internal"


async def _page(proxy: RunningProxy, path: str, *, accept: str) -> bytes:
    port = int(proxy.app.admin.address.rpartition(":")[2])
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
    return repr(await call(port, head.encode())).encode()


def test_everything_was_tried(left: Left) -> None:
    assert left.cases == len(FORWARDED) * len(REPLIES) + len(REFUSED)
    assert {"log", "spans", "/metrics", "/status"} <= set(left.outputs)
    assert any(name.startswith("audit") for name in left.outputs)
    assert left.outputs["log"].count(b"request.done") > left.cases // 2
    assert re.search(rb"request\.crashed", left.outputs["log"])


@pytest.mark.parametrize("secret", NEVER)
def test_no_secret_is_in_anything_that_is_left_behind(left: Left, secret: bytes) -> None:
    holders = {name: _around(text, secret) for name, text in left.outputs.items() if secret in text}

    assert holders == {}


def _around(text: bytes, secret: bytes) -> bytes:
    at = text.index(secret)
    return text[max(0, at - 200) : at + len(secret) + 40]
