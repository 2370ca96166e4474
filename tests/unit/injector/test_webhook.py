"""The webhook over HTTP; `test_deciding.py` has what it answers, `test_service.py` TLS."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest

from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.injector import webhook as answering
from icr_proxy.injector.webhook import BODY_MOST, LONG_ONES, AdmissionWebhook
from icr_proxy.server.listener import Listener
from tests.support.app_fixture import RawAnswer, call, read_answer
from tests.support.pods import ASKED, DEFAULTS, UID, patched, pod, response_in, review


@dataclass
class Port:
    """The webhook, and what it has logged."""

    number: int = 0
    is_ready: bool = True
    pem: bytes | None = None
    lines: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append(("error", event, fields))

    debug = info

    async def post(self, content: object, *, target: str = "/mutate") -> RawAnswer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await self.ask("POST", target, body=body)

    async def ask(self, method: str, target: str, *, body: bytes = b"") -> RawAnswer:
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        length = f"Content-Length: {len(body)}\r\n\r\n" if body else "\r\n"
        return await call(self.number, (head + length).encode() + body)


@asynccontextmanager
async def serving(port: Port) -> AsyncIterator[Port]:
    webhook = AdmissionWebhook(DEFAULTS, pem=port.pem, ready=lambda: port.is_ready, log=port)
    listener = Listener(
        "127.0.0.1:0",
        respond=webhook,
        refuse=webhook.respond_error,
        limits=LimitsConfig(),
        tag="X-ICR-Installation-Id",
        logger=logging.Logger("test"),  # noqa: LOG001 - not in the global tree
    )
    await listener.open()
    port.number = int(listener.address.rpartition(":")[2])
    try:
        yield port
    finally:
        await listener.close()


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    async with serving(Port()) as port:
        yield port


async def test_a_review_is_answered_with_a_patch(port: Port) -> None:
    answer = await port.post(review(pod(ASKED)))

    response = response_in(json.loads(answer.body))
    assert answer.status == 200
    assert patched(pod(ASKED), response)["spec"]["initContainers"][0]["name"] == "icr-proxy"
    assert port.lines == [
        (
            "info",
            "injector.reviewed",
            {
                "uid": UID,
                "namespace": "shop",
                "pod": "web-5d8f7c-",
                "result": "injected",
                "detail": None,
                "warnings": [],
                "dry_run": False,
            },
        )
    ]


async def test_the_time_limit_of_the_api_server_in_the_query_does_no_harm(port: Port) -> None:
    assert (await port.post(review(pod(ASKED)), target="/mutate?timeout=10s")).status == 200


async def test_a_refusal_is_an_answer_and_a_warning_in_the_log(port: Port) -> None:
    answer = await port.post(review(pod(ASKED | {"port": "80"})))

    response = response_in(json.loads(answer.body))
    assert answer.status == 200
    assert (response["allowed"], response["status"]["code"]) == (False, 422)
    assert port.lines[0][:2] == ("warning", "injector.reviewed")


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"nonsense", b"[" * 100_000, json.dumps(review("no pod")).encode()],
    ids=["nothing", "empty", "nonsense", "deep", "no-pod"],
)
async def test_what_is_no_review_is_a_bad_request(port: Port, body: bytes) -> None:
    answer = await port.post(body)

    assert answer.problem["code"] == "bad-request"
    assert port.lines[0][1] == "injector.bad_request"


async def test_what_is_no_http_is_a_bad_request(port: Port) -> None:
    assert (await call(port.number, b"nonsense\r\n\r\n")).problem["code"] == "bad-request"


async def test_a_huge_body_is_refused_unread(port: Port) -> None:
    head = f"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_MOST + 1}\r\n\r\n"

    answer = await call(port.number, head.encode())

    assert (answer.status, answer.problem["code"]) == (413, "body-too-large")


async def test_the_largest_body_that_kubernetes_takes_is_read(port: Port) -> None:
    manifest = pod(ASKED)
    asked = review(manifest)
    manifest["metadata"]["annotations"]["padding"] = "x" * (BODY_MOST - len(json.dumps(asked)) - 20)

    answer = await port.post(asked)

    assert json.loads(answer.body)["response"]["allowed"] is True


async def test_names_of_any_length_do_not_fill_the_log(port: Port) -> None:
    manifest = pod()
    manifest["metadata"]["name"] = "x" * 10_000

    await port.post(review(manifest, namespace="y" * 10_000, uid="z" * 10_000))

    assert {len(str(value)) for value in port.lines[0][2].values()} <= {2, 4, 5, 9, 253}


async def test_of_long_reviews_a_few_are_read_at_a_time_and_short_ones_pass_them(
    port: Port,
) -> None:
    length = BODY_MOST // 2
    head = f"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    slow = [await asyncio.open_connection("127.0.0.1", port.number) for _ in range(LONG_ONES + 1)]
    for _, writer in slow:
        writer.write(head + b"{")
        await writer.drain()

    short = await port.post(review(pod(ASKED)))
    for _, writer in slow:
        writer.write(b" " * (length - 1))
    answers = [await read_answer(reader) for reader, _ in slow]
    for _, writer in slow:
        writer.close()

    assert short.status == 200
    assert {answer.problem["code"] for answer in answers} == {"bad-request"}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("POST", "/healthz", 405),
        ("GET", "/mutate", 405),
        ("GET", "/ca.pem", 404),
        ("GET", "/", 404),
        ("POST", "/mutate/", 404),
    ],
)
async def test_what_else_is_there(port: Port, method: str, target: str, status: int) -> None:
    assert (await port.ask(method, target)).status == status


async def test_it_is_not_ready_before_it_is_believed(port: Port) -> None:
    port.is_ready = False

    assert (await port.ask("GET", "/readyz")).status == 503
    assert (await port.ask("GET", "/healthz")).status == 200


async def test_its_own_authority_can_be_had() -> None:
    async with serving(Port(pem=b"-----BEGIN")) as port:
        answer = await port.ask("GET", "/ca.pem")

    assert (answer.status, answer.body) == (200, b"-----BEGIN")


async def test_a_crash_is_answered_and_told_without_its_text(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_given: Any) -> NoReturn:
        raise RuntimeError("secret")

    monkeypatch.setattr(answering, "decide", crash)

    answer = await port.post(review(pod(ASKED)))

    assert answer.problem["code"] == "internal"
    assert port.lines[0][1] == "injector.crashed"
    assert "secret" not in repr(port.lines) + repr(answer)
