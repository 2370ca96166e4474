"""Webhooks over sockets; `test_webhooks.py` has what is genuine and what is not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from base64 import b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import pytest

from icr_proxy.admin.webhooks import BODY_MOST, WebhookReceiver
from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.identifiers import TokenKey
from icr_proxy.redaction import Secret
from icr_proxy.server.listener import Listener
from tests.support.app_fixture import RawAnswer, call, read_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SECRET = "whsec-0123456789"


class Heard:
    """A `Log` that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))

    debug = warning = error = info


class Port:
    """A port for webhooks with all that surrounds it."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.counted: list[str] = []
        self.dropped: list[TokenKey] = []
        self.had_token = True
        self.secret: Callable[[], Secret] = lambda: Secret(SECRET)
        self.read_seconds = 5.0
        self.number = 0

    def drop(self, key: TokenKey) -> bool:
        self.dropped.append(key)
        return self.had_token

    async def deliver(self, content: object, *, secret: str = SECRET, extra: int = 0) -> RawAnswer:
        return await call(self.number, delivery(content, secret=secret, extra=extra))


@asynccontextmanager
async def listening(port: Port) -> AsyncIterator[None]:
    deliveries = WebhookReceiver(
        path="/hooks",
        secret=lambda: port.secret(),  # noqa: PLW0108 - tests replace it
        drop=port.drop,
        count=port.counted.append,
        log=port.heard,
        read_seconds=port.read_seconds,
    )
    listener = Listener(
        "127.0.0.1:0",
        respond=deliveries,
        refuse=deliveries.respond_error,
        limits=LimitsConfig(),
        tag="X-ICR-Installation-Id",
        logger=logging.Logger("test"),  # noqa: LOG001 - not in the global tree
    )
    await listener.open()
    port.number = int(listener.address.rpartition(":")[2])
    try:
        yield
    finally:
        await listener.close()


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    port = Port()
    async with listening(port):
        yield port


def head(
    body: int, *, method: str = "POST", target: str = "/hooks", signature: str = "", extra: str = ""
) -> bytes:
    lines = f"{method} {target} HTTP/1.1\r\nHost: hooks.example\r\nContent-Length: {body}\r\n"
    return f"{lines}x-icr-signature-256: sha256={signature}\r\n{extra}\r\n".encode()


def delivery(content: object, *, secret: str = SECRET, extra: int = 0) -> bytes:
    """Write a delivery as the registry sends it; `extra` pads its body."""
    data = b64encode(json.dumps(content).encode()).decode()
    signature = hmac.new(secret.encode(), data.encode(), hashlib.sha256).hexdigest()
    body = json.dumps({"signedData": data, "padding": "x" * extra}).encode()
    return head(len(body), signature=signature) + body


def about(event: str, installation: str = "in-1") -> dict[str, object]:
    return {"event": event, "installation": {"id": installation}}


@pytest.mark.parametrize(
    "event", ["suspended", "unsuspended", "uninstalled", "newPermissionsAccepted"]
)
async def test_a_genuine_event_drops_the_token_it_concerns(port: Port, event: str) -> None:
    answer = await port.deliver(about(event))

    assert (answer.status, answer.body) == (202, b"accepted\n")
    assert port.dropped == [TokenKey("in-1")]
    assert port.counted == ["dropped"]
    assert port.heard.lines == [
        (
            "webhook.received",
            {"webhook_event": event, "installation": "in-1", "dropped": True},
        )
    ]


@pytest.mark.parametrize("event", ["installed", "warehouseTransaction", "of next year"])
async def test_other_events_are_noted(port: Port, event: str) -> None:
    answer = await port.deliver(about(event))

    assert answer.status == 202
    assert port.dropped == []
    assert port.counted == ["noted"]
    assert port.heard.lines[0][1]["webhook_event"] == event


async def test_an_event_without_a_token_to_drop_is_noted(port: Port) -> None:
    port.had_token = False

    answer = await port.deliver(about("suspended"))

    assert answer.status == 202
    assert port.counted == ["noted"]


async def test_a_replay_is_harmless(port: Port) -> None:
    found = [(await port.deliver(about("suspended"))).status for _ in range(3)]

    assert found == [202] * 3
    assert set(port.dropped) == {TokenKey("in-1")}


async def test_the_name_of_an_unknown_event_does_not_fill_the_log(port: Port) -> None:
    await port.deliver(about("x" * 10_000))

    assert port.heard.lines[0][1]["webhook_event"] == "x" * 64


async def test_a_bad_signature_is_refused(port: Port) -> None:
    answer = await port.deliver(about("suspended"), secret="another")

    assert answer.status == 401
    assert answer.problem["code"] == "webhook-refused"
    assert port.dropped == []
    assert port.counted == ["refused"]
    assert port.heard.lines == [
        (
            "webhook.refused",
            {
                "code": "webhook-refused",
                "detail": "the delivery's signature is not right",
                "peer": "127.0.0.1",
            },
        )
    ]


@pytest.mark.parametrize("target", ["/", "/hooks/", "/HOOKS", "//hooks", "/healthz", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_else_is_there(port: Port, method: str, target: str) -> None:
    answer = await call(port.number, head(0, method=method, target=target))

    assert answer.status == 404
    assert port.counted == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_deliveries_are_posted(port: Port, method: str) -> None:
    answer = await call(port.number, head(0, method=method))

    assert (answer.status, answer.values(b"Allow")) == (405, [b"POST"])


async def test_a_query_does_no_harm(port: Port) -> None:
    request = delivery(about("suspended")).replace(b"/hooks ", b"/hooks?x=1 ")

    assert (await call(port.number, request)).status == 202


# -- senders that are slow, long or broken --------------------------------------------------------


async def test_a_long_delivery_is_read(port: Port) -> None:
    answer = await port.deliver(about("suspended"), extra=BODY_MOST - 1024)

    assert answer.status == 202


async def test_a_delivery_that_is_too_long_is_refused_unread(port: Port) -> None:
    answer = await call(port.number, head(BODY_MOST + 1))

    assert answer.problem["code"] == "body-too-large"
    assert answer.values(b"Connection") == [b"close"]
    assert port.counted == ["refused"]


async def test_a_delivery_that_does_not_say_how_long_it_is_has_the_same_limit(port: Port) -> None:
    chunk = b"%x\r\n%b\r\n" % (BODY_MOST, b"x" * BODY_MOST)
    start = b"POST /hooks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = await call(port.number, start + chunk + b"1\r\nx\r\n0\r\n\r\n")

    assert answer.problem["code"] == "body-too-large"


async def test_a_sender_that_trickles_is_cut_short() -> None:
    """One byte in time, again and again, would hold the connection for ever."""
    port = Port()
    port.read_seconds = 0.2
    async with listening(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
        writer.write(head(1000))
        answering = asyncio.ensure_future(read_answer(reader))
        while not answering.done():
            writer.write(b"x")
            await asyncio.wait({answering}, timeout=0.02)
        answer = await answering
        writer.close()

    assert answer.problem["code"] == "request-timeout"
    assert port.counted == ["refused"]


async def test_a_sender_that_left_is_no_delivery(port: Port) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    writer.write(head(1000) + b"x")
    writer.write_eof()

    await reader.read()
    writer.close()

    assert (await port.deliver(about("suspended"))).status == 202
    assert port.counted == ["dropped"]


async def test_a_sender_that_waits_for_a_go_ahead_gets_it(port: Port) -> None:
    whole = delivery(about("suspended"))
    start, _, body = whole.partition(b"\r\n\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    writer.write(start + b"\r\nExpect: 100-continue\r\n\r\n")

    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    answer = await read_answer(reader)
    writer.close()

    assert answer.status == 202


async def test_what_is_no_http_is_refused(port: Port) -> None:
    answer = await call(port.number, b"nonsense\r\n\r\n")

    assert answer.problem["code"] == "bad-request"
    assert port.counted == ["refused"]


async def test_an_empty_delivery_is_refused(port: Port) -> None:
    answer = await call(port.number, head(0))

    assert answer.problem["code"] == "webhook-refused"


async def test_a_crash_is_answered_and_told_without_its_text(port: Port) -> None:
    def crash() -> NoReturn:
        raise RuntimeError(SECRET)

    port.secret = crash

    answer = await port.deliver(about("suspended"))

    assert answer.problem["code"] == "internal"
    ((event, fields),) = port.heard.lines
    assert (event, fields["error"]) == ("webhook.crashed", "RuntimeError")
    assert SECRET not in repr(fields) + repr(answer)
