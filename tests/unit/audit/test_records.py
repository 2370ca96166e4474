from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from icr_proxy.audit.records import KINDS, intent_of, request_of, tagged
from icr_proxy.observability.outcome import Announcement
from icr_proxy.query_redaction import QueryRedaction
from tests.support.audit_fixture import journal_of, outcome_of, record_of
from tests.support.tables import field_table, record_table

DOCUMENT = Path(__file__).parents[3] / "docs" / "audit.md"


def test_a_record_says_who_what_with_what_and_how_it_ended() -> None:
    record = request_of(
        outcome_of(
            token="abc", token_generation=3, digest_in="d1", digest_out="d2", bytes_in=5,
            bytes_out=6, first_byte=0.1,
        ),
        redact=QueryRedaction(()),
    )  # fmt: skip

    assert msgspec.to_builtins(record) == {
        "kind": "request",
        "time": "2026-09-21T14:13:20.500+00:00",
        "request_id": "r-1",
        "trace_id": "7" * 32,
        "listener": "127.0.0.1:8080",
        "peer": "10.0.0.7",
        "method": "POST",
        "path": "/v1/retire",
        "operation": "v1.retire",
        "changes_state": True,
        "rule": "default",
        "installation": "inst-1",
        "organization": "org-1",
        "token": "abc",
        "token_generation": 3,
        "decision": "allowed",
        "status": 200,
        "origin": "upstream",
        "attempts": 1,
        "bytes_in": 5,
        "bytes_out": 6,
        "duration_ms": 500.0,
        "token_wait_ms": 0.0,
        "first_byte_ms": 100.0,
        "sha256_in": "d1",
        "sha256_out": "d2",
    }


def test_an_intent_says_what_is_about_to_happen() -> None:
    intent = intent_of(journal_of(target="/v1/retire?a=b"), redact=QueryRedaction(()), now=0.0)

    assert (intent.request_id, intent.operation, intent.query) == ("r-1", "v1.retire", "a=b")
    assert intent.time == "1970-01-01T00:00:00.000+00:00"


def test_each_fact_is_in_the_field_of_its_name() -> None:
    """Fields go by place, so a fact could stand in the place of another of its type."""
    texts = ("request_id", "listener", "peer", "caller", "method", "operation", "rule", "origin",
        "installation", "organization", "token", "code", "duplicate_of", "digest_in", "digest_out",
    )  # fmt: skip
    numbers = ("token_generation", "attempts", "status", "bytes_in", "bytes_out")
    facts: dict[str, object] = {name: name for name in texts}
    facts |= {name: number for number, name in enumerate(numbers, 1)}
    journal = journal_of(**facts, target="/path?query", token_wait=0.25, first_byte=0.125)
    journal.intent = Announcement(9)
    known = {
        **facts,
        "trace_id": "7" * 32, "intent": 9, "path": "/path", "query": "query", "changes_state": True,
        "decision": "allowed", "duration_ms": 500.0, "token_wait_ms": 250.0, "first_byte_ms": 125.0,
        "sha256_in": facts.pop("digest_in"), "sha256_out": facts.pop("digest_out"),
    }  # fmt: skip

    intent = intent_of(journal, redact=QueryRedaction(()), now=0.0)
    request = request_of(journal.close(at=0.5), redact=QueryRedaction(()))

    for record in (intent, request):
        said = msgspec.structs.asdict(record)
        del said["time"]
        assert said == {name: known[name] for name in said}


@pytest.mark.parametrize(
    ("changed", "decision"),
    [
        ({}, "allowed"),
        ({"rule": "r", "code": "policy-denied"}, "denied"),
        ({"rule": "r", "would_refuse": "r"}, "reported"),
        ({"rule": None, "code": "wrong-host"}, None),
    ],
)
def test_the_decision_of_the_policy_is_told(
    changed: dict[str, str | None], decision: str | None
) -> None:
    assert record_of(**changed).decision == decision


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        pytest.param(None, "", None, id="never understood"),
        pytest.param("/a", "/a", None, id="no query"),
        pytest.param("/a?", "/a", "", id="an empty query"),
        pytest.param("/a?b=1&c", "/a", "b=1&c", id="a query as sent"),
        pytest.param("/a\n?b=\x1b[31m", "/a\\x0a", "b=\\x1b[31m", id="control characters"),
        pytest.param("/" + "a" * 5000, "/" + "a" * 5000, None, id="all of a long path"),
    ],
)
def test_path_and_query_are_recorded_as_sent(
    target: str | None, path: str, query: str | None
) -> None:
    record = record_of(target=target)

    assert (record.path, record.query) == (path, query)


def test_a_hidden_value_is_in_no_record() -> None:
    redact = QueryRedaction(("token",))
    target = "/v1/retire?a=1;token[]=S&\ufb01=\x01"

    intent = intent_of(journal_of(target=target), redact=redact, now=0.0)
    request = request_of(outcome_of(target=target), redact=redact)

    assert intent.query == request.query == "a=1;token[]=***&\\xef\\xac\\x81=\\x01"


def test_every_field_says_what_it_means() -> None:
    for kind in KINDS:
        for name, hint in get_type_hints(kind, include_extras=True).items():
            assert hint.__metadata__[0].description.endswith("."), name


def test_the_tables_name_every_record_and_every_field() -> None:
    table = record_table() + field_table()

    for tag, kind in tagged():
        assert f"| `{tag}` |" in table
        assert all(f"| `{name}` |" in table for name in kind.__struct_fields__)


@pytest.mark.parametrize(
    ("marker", "table"),
    [("records", record_table), ("fields", field_table)],
    ids=["records", "fields"],
)
def test_the_document_of_the_format_has_the_tables_of_the_code(
    marker: str, table: Callable[[], str]
) -> None:
    pattern = f"<!-- audit-{marker}:begin -->\n(.*?)<!-- audit-{marker}:end -->"
    found = re.findall(pattern, DOCUMENT.read_text(), re.DOTALL)

    assert found == [table()]
