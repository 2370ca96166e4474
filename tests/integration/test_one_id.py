"""One request, one id: whatever somebody holds in their hands, it leads to everything else.

The program is the real one; the retirement is sent through it as any tool would.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

from tests.integration.test_audit import Load
from tests.support.app_fixture import call, request_head
from tests.support.audit_fixture import records_in
from tests.support.otlp_collector import attributes, collector
from tests.support.program import program_before, run_to_end

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator

GUARD_SECONDS = 20.0
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n".encode()


async def recorded_row(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Follow a console's stream until there is a row whose record is known."""
    found: dict[str, Any] | None = None
    async with asyncio.timeout(GUARD_SECONDS):
        while True:
            line = await reader.readuntil(b"\n")
            if not line.startswith(b"data: "):
                continue
            told = json.loads(line[6:])
            for row in told.get("rows", []):
                found = row
            for _, _, seq in told.get("audited", []):
                found = {**(found or {}), "audit_seq": seq}
            if found is not None and found["audit_seq"] is not None:
                return found


async def test_a_retirement_has_one_id_wherever_it_is_told_of(
    emulator: Emulator, tmp_path: Path
) -> None:
    trail = tmp_path / "audit"
    retirement = Load(emulator, random.Random(1)).retirement("retire-7")
    head, _, body = retirement.partition(b"\r\n\r\n")
    async with (
        collector() as spans,
        program_before(
            emulator,
            tmp_path,
            ICR_PROXY_AUDIT__DIRECTORY=str(trail),
            ICR_PROXY_TRACING__ENDPOINT=spans.endpoint,
        ) as program,
    ):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(program.admin.rpartition(":")[2])
        )
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")

        answer = await call(program.port, head + b"\r\n" + TRACEPARENT + b"\r\n" + body)
        row = await recorded_row(reader)
        line = await program.until("request.done")
        writer.close()
        program.process.terminate()
        assert await program.end() == 0

    assert answer.status == 200
    intent, outcome = (each for each in records_in(trail) if each.get("request_id") == "retire-7")
    seen = {(each["request_id"], each["trace_id"]) for each in (row, line, intent, outcome)}
    assert seen == {("retire-7", TRACE)}
    assert (intent["kind"], outcome["kind"]) == ("intent", "request")
    assert (row["intent_seq"], row["audit_seq"]) == (intent["seq"], outcome["seq"])
    assert {span.trace_id.hex() for span in spans.spans} == {TRACE}
    assert "retire-7" in attributes(spans.named("POST v1.retire")).values()
    for words in (["query", "--request-id", "retire-7"], ["report", "--format", "csv"]):
        code, out, _ = await run_to_end(["audit", *words, str(trail)], {})
        assert (code, "retire-7" in out) == (0, True)


async def test_a_refused_retirement_has_it_in_the_problem(
    emulator: Emulator, tmp_path: Path
) -> None:
    trail = tmp_path / "audit"
    async with program_before(
        emulator,
        tmp_path,
        ICR_PROXY_AUDIT__DIRECTORY=str(trail),
        ICR_PROXY_POLICY__READ_ONLY="true",
    ) as program:
        tag = next(iter(emulator.world.installations))
        extra = f"X-Request-Id: retire-8\r\nContent-Length: 0\r\n{TRACEPARENT.decode()}"
        answer = await call(program.port, request_head("POST", "/v1/retire", tag=tag, extra=extra))
        line = await program.until("request.done")
        program.process.terminate()
        assert await program.end() == 0

    (record,) = (each for each in records_in(trail) if each.get("request_id") == "retire-8")
    problem = answer.problem
    assert (problem["code"], problem["requestId"], problem["traceId"]) == (
        "policy-denied",
        "retire-8",
        TRACE,
    )
    assert (record["code"], record["trace_id"]) == ("policy-denied", TRACE)
    assert (line["request_id"], line["code"]) == ("retire-8", "policy-denied")
