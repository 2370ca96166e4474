"""Exports of a trail: DuckDB, Parquet, HAR 1.2.

http://www.softwareishard.com/blog/har-12-spec/. The trail has neither headers nor bodies, so the
archive has none. Values of the query and addresses are hidden unless one asks for them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

from icr_proxy import __version__
from icr_proxy.audit.records import tagged
from icr_proxy.errors import StartError
from icr_proxy.query_redaction import HIDDEN, QueryRedaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from icr_proxy.audit_tools.query import Entry

REMEDY = "this needs DuckDB: pip install 'icr-proxy[audit]'"
_TYPES = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}
_NULL = type(None)


class SqlError(Exception):
    """The query is no SQL, or names what is not there."""


def columns() -> dict[str, str]:
    """Return the SQL type of each field of all records."""
    found = {"seq": "BIGINT", "kind": "VARCHAR", "prev": "VARCHAR", "hash": "VARCHAR"}
    found["mac"] = "VARCHAR"
    for _, kind in tagged():
        for name, hint in get_type_hints(kind).items():
            found.setdefault(name, _sql_type(hint))
    found["time"] = "TIMESTAMPTZ"
    return found


def _sql_type(hint: Any) -> str:
    plain = [each for each in get_args(hint) if each is not _NULL] or [hint]
    if get_origin(hint) is tuple:
        return "VARCHAR[]"
    return _TYPES.get(plain[0], "JSON") if get_origin(hint) is not dict else "JSON"


def open_database(files: Sequence[Path]) -> DuckDBPyConnection:
    """Open a database in memory, with the view `audit` of these files.

    Raises:
        StartError: DuckDB is not installed.
        SqlError: it cannot read the files.
    """
    try:
        import duckdb  # noqa: PLC0415
    except ImportError:
        raise StartError(REMEDY) from None
    try:
        return _open_database(duckdb, files)
    except duckdb.Error as exc:
        raise SqlError(str(exc)) from None


def _open_database(duckdb: Any, files: Sequence[Path]) -> DuckDBPyConnection:
    database: DuckDBPyConnection = duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": "false"}
    )
    shape = ", ".join(f"{_quoted(name)}: {_quoted(kind)}" for name, kind in columns().items())
    listed = ", ".join(_quoted(str(path)) for path in files)
    database.execute(
        f"CREATE VIEW audit AS SELECT * FROM read_json([{listed}],"  # noqa: S608 - quoted
        f" format='newline_delimited', ignore_errors=true, columns={{{shape}}})"
    )
    database.execute("CREATE VIEW requests AS SELECT * FROM audit WHERE kind = 'request'")
    database.execute("SET TimeZone = 'UTC'")
    return database


def run_sql(database: DuckDBPyConnection, sql: str) -> list[Entry]:
    """Return the rows of a query.

    Raises:
        SqlError: DuckDB cannot run it.
    """
    import duckdb  # noqa: PLC0415

    try:
        answer = database.execute(sql)
    except duckdb.Error as exc:
        raise SqlError(str(exc)) from None
    names = [column[0] for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def write_parquet(records: Iterable[Entry], target: Path, *, scratch: Path) -> None:
    """Write records as Parquet; `scratch` is a path for a temporary file.

    Raises:
        StartError: DuckDB is not installed.
    """
    import msgspec  # noqa: PLC0415

    encode = msgspec.json.Encoder().encode
    with scratch.open("wb") as lines:
        for record in records:
            lines.write(encode(record) + b"\n")
    database = open_database([scratch])
    database.execute(
        f"COPY (SELECT * FROM audit ORDER BY seq) TO {_quoted(str(target))} (FORMAT parquet)"  # noqa: S608
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_HIDE_ALL = QueryRedaction(None)


def as_har(records: Iterable[Entry], *, base_url: str, redact: bool) -> dict[str, Any]:
    """Return a HAR archive."""
    return {
        "log": {
            "version": "1.2",
            "creator": {"name": "icr-proxy", "version": __version__},
            "entries": [_entry(record, base_url=base_url, redact=redact) for record in records],
        }
    }


def _entry(record: Entry, *, base_url: str, redact: bool) -> dict[str, Any]:
    duration = float(record.get("duration_ms", 0.0))
    wait = float(record.get("first_byte_ms") or 0.0)
    blocked = min(float(record.get("token_wait_ms", 0.0)), duration)
    entry: dict[str, Any] = {
        "startedDateTime": _start(str(record.get("time")), duration),
        "time": duration,
        "request": _request(record, base_url=base_url, redact=redact),
        "response": _response(record),
        "cache": {},
        "timings": {
            "blocked": blocked,
            "send": 0,
            "wait": min(wait, duration - blocked),
            "receive": max(0.0, duration - blocked - wait),
        },
        "comment": (
            f"record {record.get('seq')}, request {record.get('request_id')}, operation"
            f" {record.get('operation')}, installation {record.get('installation')}"
        ),
    }
    if not redact:
        entry["_peer"], entry["_caller"] = record.get("peer"), record.get("caller")
    return entry


def _start(time: str, duration: float) -> str:
    try:
        began = datetime.fromisoformat(time) - timedelta(milliseconds=duration)
    except (ValueError, OverflowError):  # the proxy did not write this time
        return time
    return began.isoformat(timespec="milliseconds")


def _request(record: Entry, *, base_url: str, redact: bool) -> dict[str, Any]:
    query = record.get("query")
    if query is not None and redact:
        query = _HIDE_ALL(str(query))
    pairs = parse_qsl(query or "", keep_blank_values=True)
    return {
        "method": record.get("method"),
        "url": f"{base_url}{record.get('path', '')}{'' if query is None else f'?{query}'}",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [],
        "queryString": [{"name": name, "value": value} for name, value in pairs],
        "headersSize": -1,
        "bodySize": record.get("bytes_in", 0),
    }


def _response(record: Entry) -> dict[str, Any]:
    size = record.get("bytes_out", 0)
    return {
        "status": record.get("status", 0),
        "statusText": record.get("code") or "",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [],
        "content": {"size": size, "mimeType": ""},
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": size,
    }


def redact_record(record: Entry) -> Entry:
    """Return a record without what `as_har` hides, for other formats."""
    shown = dict(record)
    if shown.get("query") is not None:
        shown["query"] = _HIDE_ALL(str(shown["query"]))
    for name in ("peer", "caller"):
        if shown.get(name) is not None:
            shown[name] = HIDDEN
    return shown
