from __future__ import annotations

from typing import Any

import msgspec

from icr_proxy.audit_tools.export import as_har, hidden
from tests.support.audit_fixture import record_of

BASE = "https://api.example"


def entry(*, redact: bool, **changed: Any) -> dict[str, Any]:
    record = msgspec.to_builtins(record_of(**changed)) | {"seq": 7}
    [made] = as_har([record], base_url=BASE, redact=redact)["log"]["entries"]
    assert isinstance(made, dict)
    return made


def test_an_archive_has_what_har_demands() -> None:
    made = entry(redact=False, target="/v1/retire?a=b&c", first_byte=0.1, token_wait=0.2)

    assert made["startedDateTime"] == "2026-09-21T14:13:20.000+00:00"
    assert made["time"] == 500.0
    assert sum(made["timings"].values()) == 500.0
    assert set(made) >= {"request", "response", "cache", "timings"}
    assert set(made["request"]) == {
        "method", "url", "httpVersion", "cookies", "headers", "queryString", "headersSize",
        "bodySize",
    }  # fmt: skip
    assert set(made["response"]) == {
        "status", "statusText", "httpVersion", "cookies", "headers", "content", "redirectURL",
        "headersSize", "bodySize",
    }  # fmt: skip
    assert made["request"]["url"] == f"{BASE}/v1/retire?a=b&c"
    assert made["request"]["queryString"][1] == {"name": "c", "value": ""}
    assert made["_peer"] == "10.0.0.7"


def test_values_of_the_query_and_addresses_are_hidden_by_default() -> None:
    made = entry(redact=True, target="/v1/retire?name=Me")

    assert "Me" not in str(made)
    assert "10.0.0.7" not in str(made)
    assert made["request"]["url"].endswith("?name=***")


def test_other_forms_hide_the_same() -> None:
    record = msgspec.to_builtins(record_of(target="/v1/retire?name=Me", caller="erp"))

    shown = hidden(record)

    assert (shown["query"], shown["peer"], shown["caller"]) == ("name=***", "***", "***")
    assert shown["operation"] == "v1.retire"
    assert record["peer"] == "10.0.0.7"


def test_a_request_without_a_query_has_none() -> None:
    assert entry(redact=True)["request"]["url"] == f"{BASE}/v1/retire"
