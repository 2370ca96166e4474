"""SQL over a trail, and Parquet, by DuckDB, which is not installed unless one asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from icr_proxy.audit.records import tagged
from icr_proxy.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from icr_proxy.audit_tools.query import Entry

HOW_TO_GET_IT = "this needs DuckDB: pip install 'icr-proxy[audit]'"
_TYPES = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}
_NULL = type(None)


class SqlError(Exception):
    """What was asked is no SQL, or not about what is there."""


def columns() -> dict[str, str]:
    """Give every field of every record with its SQL type."""
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


def connect(files: Sequence[Path]) -> DuckDBPyConnection:
    """Make a database with the view `audit` over these files.

    Raises:
        StartError: DuckDB is not installed.
        SqlError: it cannot read the files.
    """
    try:
        import duckdb  # noqa: PLC0415
    except ImportError:
        raise StartError(HOW_TO_GET_IT) from None
    try:
        return _connect(duckdb, files)
    except duckdb.Error as exc:
        raise SqlError(str(exc)) from None


def _connect(duckdb: Any, files: Sequence[Path]) -> DuckDBPyConnection:
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


def ask(database: DuckDBPyConnection, sql: str) -> list[Entry]:
    """Give the rows of an answer.

    Raises:
        SqlError: it cannot be answered.
    """
    import duckdb  # noqa: PLC0415

    try:
        answer = database.execute(sql)
    except duckdb.Error as exc:
        raise SqlError(str(exc)) from None
    names = [column[0] for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def write_parquet(records: Iterable[Entry], target: Path, *, scratch: Path) -> None:
    """Write records as Parquet; `scratch` is a file that may be used on the way.

    Raises:
        StartError: DuckDB is not installed.
    """
    import msgspec  # noqa: PLC0415

    encode = msgspec.json.Encoder().encode
    with scratch.open("wb") as lines:
        for record in records:
            lines.write(encode(record) + b"\n")
    database = connect([scratch])
    database.execute(
        f"COPY (SELECT * FROM audit ORDER BY seq) TO {_quoted(str(target))} (FORMAT parquet)"  # noqa: S608
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
