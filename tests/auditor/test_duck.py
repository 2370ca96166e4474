from __future__ import annotations

import sys
from pathlib import Path

import pytest

from proxy.auditfiles import list_segments
from proxy.auditor import duck
from proxy.auditor.reading import read_records
from proxy.errors import StartError
from tests.auditor.trails import write_trail


def test_every_field_is_a_column() -> None:
    columns = duck.columns()

    assert columns["seq"] == "BIGINT"
    assert columns["changes_state"] == "BOOLEAN"
    assert columns["duration_ms"] == "DOUBLE"
    assert columns["states"] == "JSON"
    assert columns["files"] == "VARCHAR[]"
    assert columns["rule"] == "VARCHAR"


def test_sql_sees_all_files(tmp_path: Path) -> None:
    head = write_trail(tmp_path / "it's here")
    database = duck.connect(list_segments(tmp_path / "it's here"))

    [row] = duck.ask(database, "SELECT count(*) AS n, max(seq) AS last FROM audit")
    kinds = duck.ask(database, "SELECT DISTINCT kind FROM requests")

    assert row == {"n": head.seq, "last": head.seq}
    assert kinds == [{"kind": "request"}]


def test_what_is_no_sql_is_said(tmp_path: Path) -> None:
    write_trail(tmp_path)

    with pytest.raises(duck.SqlError, match="syntax error"):
        duck.ask(duck.connect(list_segments(tmp_path)), "selec")


def test_parquet_holds_the_records(tmp_path: Path) -> None:
    write_trail(tmp_path)
    files = list_segments(tmp_path)
    target = tmp_path / "out.parquet"

    duck.write_parquet(read_records(files), target, scratch=tmp_path / "scratch")

    found = duck.ask(duck.connect(files), f"SELECT count(*) AS n FROM read_parquet('{target}')")
    assert found == [{"n": len(list(read_records(files)))}]
    assert target.read_bytes()[:4] == b"PAR1"


def test_without_duckdb_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)

    with pytest.raises(StartError, match=r"pip install 'icr-proxy\[audit\]'"):
        duck.connect([])
