import asyncio
import re
import subprocess
import sys
from typing import Any

import pytest

from icr_proxy.config.models import TracingConfig
from tests.support.app_fixture import (
    RawAnswer,
    Visit,
    call,
    config_for,
    ok,
    request_head,
    running,
    scripted_upstream,
)
from tests.support.otlp_collector import Collector, attributes, collector

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLERS = f"traceparent: 00-{TRACE}-{PARENT}-01\r\n"
NOT_SAMPLED = f"traceparent: 00-{TRACE}-{PARENT}-00\r\n"


class Told:
    """What one request left behind: spans, the head that the API got, the answer, the log."""

    def __init__(self) -> None:
        self.collector = Collector()
        self.heads: list[bytes] = []
        self.answer: RawAnswer
        self.log: list[dict[str, Any]] = []


async def tell(extra: str = "", *, share: float = 0.0, reply: bytes = b"") -> Told:
    told = Told()

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(reply or ok())

    async with collector() as told.collector, scripted_upstream(script) as upstream:
        tracing = TracingConfig(endpoint=told.collector.endpoint, share=share)
        async with running(config_for(upstream.url, tracing=tracing)) as proxy:
            told.answer = await call(proxy.port, request_head(extra=extra))
        told.heads, told.log = upstream.heads, proxy.log()
    return told


async def test_a_request_the_api_and_the_mint_are_spans_of_the_callers_trace() -> None:
    told = await tell(CALLERS)

    spans = told.collector.spans
    assert {span.name for span in spans} == {"GET projects.list", "GET API", "mint"}
    assert {span.trace_id.hex() for span in spans} == {TRACE}


async def test_spans_hang_together() -> None:
    told = await tell(CALLERS)

    serving = told.collector.named("GET projects.list")
    assert serving.parent_span_id.hex() == PARENT
    assert told.collector.named("GET API").parent_span_id == serving.span_id
    assert told.collector.named("mint").parent_span_id == serving.span_id


async def test_the_api_continues_under_the_span_that_asked_it() -> None:
    told = await tell(CALLERS)

    asking = told.collector.named("GET API").span_id.hex()
    assert f"traceparent: 00-{TRACE}-{asking}-01".encode() in told.heads[0]


async def test_a_child_lies_within_its_parent_in_time() -> None:
    told = await tell(CALLERS)

    serving, asking = (told.collector.named(name) for name in ("GET projects.list", "GET API"))
    assert serving.start_time_unix_nano <= asking.start_time_unix_nano
    assert asking.end_time_unix_nano <= serving.end_time_unix_nano + 1000


async def test_a_span_says_what_the_log_line_says() -> None:
    told = await tell(CALLERS)

    said = attributes(told.collector.named("GET projects.list"))
    (line,) = [line for line in told.log if line["event"] == "request.done"]
    assert line["trace_id"] == TRACE
    assert said["icr.request_id"] == line["request_id"]
    assert said["icr.token.fingerprint"] == line["token"]
    assert said["http.response.status_code"] == line["status"] == 200


async def test_a_failure_of_the_api_is_an_error_of_both_spans() -> None:
    told = await tell(CALLERS, reply=b"garbage\r\n\r\n")

    assert told.answer.problem["traceId"] == TRACE
    for name in ("GET projects.list", "GET API"):
        span = told.collector.named(name)
        assert attributes(span)["error.type"] == "upstream-broken"
        assert span.status.code == span.status.STATUS_CODE_ERROR


@pytest.mark.parametrize(
    ("extra", "share", "spans"),
    [
        pytest.param(NOT_SAMPLED, 1.0, 0, id="the caller keeps none of its trace"),
        pytest.param("", 0.0, 0, id="no share of those that begin here"),
        pytest.param("", 1.0, 3, id="all that begin here"),
    ],
)
async def test_what_is_not_sampled_is_not_sent(extra: str, share: float, spans: int) -> None:
    told = await tell(extra, share=share)

    assert len(told.collector.spans) == spans


async def test_the_resource_names_the_service() -> None:
    told = await tell(CALLERS)

    assert told.collector.resources[0]["service.name"] == "icr-proxy"


async def test_nothing_secret_is_in_a_span() -> None:
    planted = "Authorization: Bearer planted-secret\r\nCookie: planted-secret\r\n"
    told = await tell(CALLERS + planted)

    sent = b"".join(told.collector.requests)
    assert b"planted-secret" not in sent
    assert re.search(rb"crs_|PRIVATE KEY", sent) is None


async def test_a_collector_that_is_away_costs_no_request() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok())

    tracing = TracingConfig(endpoint="http://127.0.0.1:9/v1/traces", share=1.0)
    async with (
        scripted_upstream(script) as upstream,
        running(config_for(upstream.url, tracing=tracing)) as proxy,
    ):
        answer = await call(proxy.port, request_head())

    assert answer.status == 200
    assert {line["logger"] for line in proxy.log("library.error")} == {
        "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    }


async def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import asyncio, sys\n"
        "from tests.support.app_fixture import config_for, running\n"
        "async def main():\n"
        "    async with running(config_for('http://127.0.0.1:9')):\n"
        "        pass\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )

    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
