from __future__ import annotations

import asyncio
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from icr_proxy.audit.chain import ChainHead, read_audit_key
from icr_proxy.audit.segments import list_segments
from icr_proxy.audit.service import TrailReports, config_digest
from icr_proxy.audit.writer_thread import WriteResult
from icr_proxy.config.inbound_models import PolicyConfig, RuleConfig
from icr_proxy.config.models import AuditConfig, LogsConfig
from icr_proxy.errors import ConfigError, StartError
from icr_proxy.observability.log import LineBuffer, Threshold, build_log
from tests.support.app_fixture import (
    RunningProxy,
    Visit,
    call,
    config_for,
    ok,
    request_head,
    running,
    scripted_upstream,
)
from tests.support.audit_fixture import cut_last_line, kinds_in, records_in

GUARD_SECONDS = 20
NO_RETIREMENTS = RuleConfig(name="no-retirements", action="deny", operations=("v1.retire",))


async def plainly(visit: Visit, head: bytes) -> None:
    if b"Content-Length: 5" in head:
        await visit.reader.readexactly(5)
    await visit.say(ok(b"done"))


def audited(tmp_path: Path, **settings: Any) -> AuditConfig:
    return AuditConfig(directory=tmp_path / "trail", **settings)


def of_requests(tmp_path: Path) -> list[dict[str, Any]]:
    found = records_in(tmp_path / "trail")
    return [record for record in found if record["kind"] in ("intent", "request")]


async def retire(proxy: RunningProxy, target: str = "/v1/retire") -> int:
    head = request_head("POST", target, extra="Content-Length: 5\r\nX-Request-Id: mine\r\n")
    return (await call(proxy.port, head + b"hello")).status


async def test_a_request_leaves_a_record_with_its_query(tmp_path: Path) -> None:
    audit = audited(tmp_path, redact_query=("name",))
    async with (
        scripted_upstream(plainly) as api,
        running(config_for(api.url, audit=audit)) as proxy,
    ):
        await call(proxy.port, request_head(target="/projects?page=2&Name=Me"))
        logged = proxy.stream.getvalue()

    [record] = of_requests(tmp_path)
    assert (record["path"], record["query"]) == ("/projects", "page=2&Name=***")
    assert (record["installation"], record["status"], record["rule"]) == ("inst-1", 200, "default")
    assert "sha256_out" not in record
    assert b"page=2" not in logged


async def test_a_change_leaves_an_intent_and_then_how_it_ended(tmp_path: Path) -> None:
    audit = audited(tmp_path, body_digests=True)
    on_disk: list[list[str]] = []

    async def script(visit: Visit, head: bytes) -> None:
        on_disk.append(kinds_in(tmp_path / "trail"))
        await plainly(visit, head)

    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, audit=audit)) as proxy,
    ):
        assert await retire(proxy) == 200

    intent, request = of_requests(tmp_path)
    assert on_disk == [["segment", "start", "key", "intent"]]
    assert (intent["kind"], request["kind"]) == ("intent", "request")
    assert intent["request_id"] == request["request_id"] == "mine"
    assert intent["token"] == request["token"] != ""
    assert request["sha256_in"] == hashlib.sha256(b"hello").hexdigest()
    assert request["sha256_out"] == hashlib.sha256(b"done").hexdigest()


async def test_what_policy_refuses_is_recorded_with_its_rule_and_has_no_intent(
    tmp_path: Path,
) -> None:
    policy = PolicyConfig(rules=(NO_RETIREMENTS,))
    async with (
        scripted_upstream(plainly) as api,
        running(config_for(api.url, audit=audited(tmp_path), policy=policy)) as proxy,
    ):
        assert await retire(proxy) == 403

    [record] = of_requests(tmp_path)
    assert (record["decision"], record["rule"]) == ("denied", "no-retirements")
    assert (record["origin"], record["attempts"]) == ("proxy", 0)


async def test_a_repetition_that_is_refused_is_recorded_with_what_it_would_have_sent(
    tmp_path: Path,
) -> None:
    async def never(visit: Visit, _head: bytes) -> None:
        await visit.reader.readexactly(5)
        visit.reset()

    policy = PolicyConfig(duplicate_guard=60.0)
    audit = audited(tmp_path, body_digests=True)
    async with (
        scripted_upstream(never) as api,
        running(config_for(api.url, audit=audit, policy=policy)) as proxy,
    ):
        statuses = [await retire(proxy), await retire(proxy)]

    assert statuses == [502, 409]
    intent, first, second = of_requests(tmp_path)
    assert (intent["kind"], first["status"], second["status"]) == ("intent", 502, 409)
    assert second["duplicate_of"] == "mine"
    assert second["sha256_in"] == first["sha256_in"] == hashlib.sha256(b"hello").hexdigest()


async def test_the_life_of_the_proxy_is_in_the_chain(tmp_path: Path) -> None:
    async with (
        scripted_upstream(plainly) as api,
        running(config_for(api.url, audit=audited(tmp_path))) as proxy,
    ):
        config = proxy.app.config
        changed = config_for(
            api.url, app=config.app, audit=config.audit, logs=LogsConfig(level="debug")
        )

        def broken() -> Any:
            raise ConfigError(("no",))

        proxy.app.reload(lambda: changed)
        proxy.app.reload(broken)

    records = records_in(tmp_path / "trail")
    assert [record["kind"] for record in records] == [
        "segment", "start", "key", "reload", "stop", "end",
    ]  # fmt: skip
    assert list(records[2]["states"].values()) == ["active"]
    assert records[1]["config"] != records[3]["config"] == config_digest(changed)


async def test_what_an_operator_does_is_in_the_chain(tmp_path: Path) -> None:
    async with (
        scripted_upstream(plainly) as api,
        running(config_for(api.url, audit=audited(tmp_path))) as proxy,
    ):
        port = int(proxy.admin_url.rpartition(":")[2])
        line = b"POST /installations/inst-1/block HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert (await call(port, line)).status == 200

    [record] = [each for each in records_in(tmp_path / "trail") if each["kind"] == "switch"]
    assert (record["action"], record["installation"]) == ("block", "inst-1")
    assert record["peer"] == "127.0.0.1"


async def test_the_head_is_published_as_numbers_of_one_moment(tmp_path: Path) -> None:
    async with (
        scripted_upstream(plainly) as api,
        running(config_for(api.url, audit=audited(tmp_path))) as proxy,
    ):
        await retire(proxy)
        async with asyncio.timeout(GUARD_SECONDS):
            while proxy.metric("audit_records_total", result="written") < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        seq, number = proxy.metric("audit_head"), proxy.metric("audit_head_hash")

        assert proxy.metric("audit_queue") == 0
        assert proxy.metric("audit_writable") == 1

    record = records_in(tmp_path / "trail")[int(seq) - 1]
    assert record["seq"] == seq
    assert f"{int(number):012x}" == record["hash"][:12]
    [head] = proxy.log("audit.head")
    assert head["hash"] == records_in(tmp_path / "trail")[-1]["hash"]


async def test_a_second_proxy_on_the_same_directory_does_not_start(tmp_path: Path) -> None:
    async with scripted_upstream(plainly) as api:
        config = config_for(api.url, audit=audited(tmp_path))
        async with running(config):
            with pytest.raises(StartError, match="in use by process"):
                async with running(config):
                    pass
            assert len(list_segments(tmp_path / "trail")) == 1


async def test_a_proxy_does_not_start_with_a_trail_whose_end_was_cut(tmp_path: Path) -> None:
    async with scripted_upstream(plainly) as api:
        audit = audited(tmp_path, anchor_file=tmp_path / "anchor")
        config = config_for(api.url, audit=audit)
        async with running(config) as proxy:
            await retire(proxy)
        cut_last_line(list_segments(tmp_path / "trail")[0], lines=2)

        for _ in range(2):  # a restart does not help
            with pytest.raises(StartError, match="the end of the trail was cut off"):
                async with running(config):
                    pass


async def test_a_proxy_that_goes_on_with_a_cut_trail_says_so_in_trail_and_log(
    tmp_path: Path,
) -> None:
    async with scripted_upstream(plainly) as api:
        audit = audited(tmp_path, anchor_file=tmp_path / "anchor", on_failure="continue")
        config = config_for(api.url, audit=audit)
        async with running(config) as proxy:
            await retire(proxy)
        list_segments(tmp_path / "trail")[0].unlink()
        async with running(config) as proxy:
            [told] = proxy.log("audit.rewound")
        async with running(config) as proxy:
            assert proxy.log("audit.rewound") == []

    [record] = [each for each in records_in(tmp_path / "trail") if each["kind"] == "rewound"]
    assert told["level"] == "error"
    assert (record["last"], record["known_seq"]) == (0, 7)
    assert "reason" not in record


async def test_an_anchor_that_has_gone_is_told(tmp_path: Path) -> None:
    async with scripted_upstream(plainly) as api:
        config = config_for(api.url, audit=audited(tmp_path, anchor_file=tmp_path / "anchor"))
        async with running(config) as proxy:
            assert proxy.log("audit.anchor_missing") == []
        (tmp_path / "anchor").unlink()
        async with running(config) as proxy:
            [told] = proxy.log("audit.anchor_missing")

    assert told["file"] == str(tmp_path / "anchor")


async def test_an_outcome_names_its_intent(tmp_path: Path) -> None:
    async with (
        scripted_upstream(plainly) as api,
        running(config_for(api.url, audit=audited(tmp_path))) as proxy,
    ):
        await retire(proxy)
        await call(proxy.port, request_head(target="/projects"))

    intent, write, read = of_requests(tmp_path)
    assert write["intent"] == intent["seq"]
    assert "intent" not in read


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param(None, "cannot be read", id="missing"),
        pytest.param("k" * 31, "less than 32 characters", id="short"),
    ],
)
def test_a_key_that_cannot_be_used_is_said(tmp_path: Path, text: str | None, why: str) -> None:
    file = tmp_path / "key"
    if text is not None:
        file.write_text(text)

    with pytest.raises(StartError, match=rf"audit\.key_file: .*{why}"):
        read_audit_key(file, key="audit.key_file")


def test_a_key_is_one_line_of_text(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("k" * 64 + "\n")

    key = read_audit_key(file, key="audit.key_file")

    assert key.reveal() == "k" * 64


def test_two_configurations_are_told_apart_but_not_by_their_secrets() -> None:
    one = config_for("http://127.0.0.1:1", key="one")
    other = config_for("http://127.0.0.1:1", key="other")
    third = config_for("http://127.0.0.1:2", key="one")

    assert config_digest(one) == config_digest(other) != config_digest(third)


def told(*landed: WriteResult) -> tuple[list[str], CollectorRegistry]:
    stream, registry = io.BytesIO(), CollectorRegistry()
    log = build_log(
        LogsConfig(), lines=LineBuffer(stream), threshold=Threshold("info"), now=lambda: 0.0
    )
    reports = TrailReports(log=log, registry=registry)
    for each in landed:
        reports.on_write_result(each)
    reports.count_unrecorded("refused")
    reports.count_unrecorded("lost")
    return [json.loads(line)["event"] for line in stream.getvalue().splitlines()], registry


def test_trouble_is_told_once_and_so_is_its_end() -> None:
    fine = WriteResult(head=ChainHead(1, "a" * 64), segment=None)
    full = replace(fine, error="No space left on device")
    tick = replace(fine, periodic=True)
    no_anchor = replace(tick, anchor_error="Permission denied")

    events, registry = told(full, full, fine, no_anchor, no_anchor, tick, no_anchor, full)

    assert [event for event in events if event != "audit.head"] == [
        "audit.failed",
        "audit.recovered",
        "audit.anchor_failed",
        "audit.anchor_failed",
        "audit.failed",
    ]
    assert registry.get_sample_value("icr_proxy_audit_writable") == 0
    for result in ("lost", "refused"):
        name = "icr_proxy_audit_records_total"
        assert registry.get_sample_value(name, {"result": result}) == 1


def test_there_is_no_head_before_there_is_a_record() -> None:
    _, registry = told()

    assert registry.get_sample_value("icr_proxy_audit_head") is None
