from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from icr_proxy.audit.segments import list_segments
from icr_proxy.audit_tools import export
from icr_proxy.audit_tools.export import as_har, redact_record
from icr_proxy.audit_tools.query import read_records
from icr_proxy.errors import StartError
from tests.support.audit_fixture import record_of
from tests.support.audit_trails import write_trail


def test_every_field_is_a_column() -> None:
    columns = export.columns()

    assert columns["seq"] == "BIGINT"
    assert columns["changes_state"] == "BOOLEAN"
    assert columns["duration_ms"] == "DOUBLE"
    assert columns["states"] == "JSON"
    assert columns["files"] == "VARCHAR[]"
    assert columns["rule"] == "VARCHAR"


def test_sql_sees_all_files(tmp_path: Path) -> None:
    head = write_trail(tmp_path / "it's here")
    database = export.open_database(list_segments(tmp_path / "it's here"))

    [row] = export.run_sql(database, "SELECT count(*) AS n, max(seq) AS last FROM audit")
    kinds = export.run_sql(database, "SELECT DISTINCT kind FROM requests")

    assert row == {"n": head.seq, "last": head.seq}
    assert kinds == [{"kind": "request"}]


def test_what_is_no_sql_is_said(tmp_path: Path) -> None:
    write_trail(tmp_path)

    with pytest.raises(export.SqlError, match="syntax error"):
        export.run_sql(export.open_database(list_segments(tmp_path)), "selec")


def test_parquet_holds_the_records(tmp_path: Path) -> None:
    write_trail(tmp_path)
    files = list_segments(tmp_path)
    target = tmp_path / "out.parquet"

    export.write_parquet(read_records(files), target, scratch=tmp_path / "scratch")

    found = export.run_sql(
        export.open_database(files), f"SELECT count(*) AS n FROM read_parquet('{target}')"
    )
    assert found == [{"n": len(list(read_records(files)))}]
    assert target.read_bytes()[:4] == b"PAR1"


def test_without_duckdb_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)

    with pytest.raises(StartError, match=r"pip install 'icr-proxy\[audit\]'"):
        export.open_database([])


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

    shown = redact_record(record)

    assert (shown["query"], shown["peer"], shown["caller"]) == ("name=***", "***", "***")
    assert shown["operation"] == "v1.retire"
    assert record["peer"] == "10.0.0.7"


def test_a_request_without_a_query_has_none() -> None:
    assert entry(redact=True)["request"]["url"] == f"{BASE}/v1/retire"
