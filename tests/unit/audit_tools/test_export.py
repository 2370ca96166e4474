from __future__ import annotations

import sys
from pathlib import Path

import pytest

from icr_proxy.audit.segments import list_segments
from icr_proxy.audit_tools import export
from icr_proxy.audit_tools.query import read_records
from icr_proxy.errors import StartError
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
    database = export.connect(list_segments(tmp_path / "it's here"))

    [row] = export.ask(database, "SELECT count(*) AS n, max(seq) AS last FROM audit")
    kinds = export.ask(database, "SELECT DISTINCT kind FROM requests")

    assert row == {"n": head.seq, "last": head.seq}
    assert kinds == [{"kind": "request"}]


def test_what_is_no_sql_is_said(tmp_path: Path) -> None:
    write_trail(tmp_path)

    with pytest.raises(export.SqlError, match="syntax error"):
        export.ask(export.connect(list_segments(tmp_path)), "selec")


def test_parquet_holds_the_records(tmp_path: Path) -> None:
    write_trail(tmp_path)
    files = list_segments(tmp_path)
    target = tmp_path / "out.parquet"

    export.write_parquet(read_records(files), target, scratch=tmp_path / "scratch")

    found = export.ask(export.connect(files), f"SELECT count(*) AS n FROM read_parquet('{target}')")
    assert found == [{"n": len(list(read_records(files)))}]
    assert target.read_bytes()[:4] == b"PAR1"


def test_without_duckdb_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)

    with pytest.raises(StartError, match=r"pip install 'icr-proxy\[audit\]'"):
        export.connect([])
