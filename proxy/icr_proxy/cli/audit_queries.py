"""Commands that read an audit trail: search, sum up, export, suggest a policy."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icr_proxy.cli.options import FAILED, Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from icr_proxy.audit_tools.query import RecordFilter

Entry = dict[str, Any]

QUERY_COLUMNS = (
    "time", "seq", "status", "method", "path", "operation", "installation", "caller", "peer",
    "code", "request_id",
)  # fmt: skip


def _now() -> float:
    return time.time()  # noqa: TID251 - of a command, not of the program that serves


def _source(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument that says which trail."""
    return click.argument(
        "paths",
        type=click.Path(exists=True, path_type=Path),
        envvar="ICR_PROXY_AUDIT__DIRECTORY",
        nargs=-1,
        required=True,
    )(command)


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which records."""
    options = (
        (
            "--since",
            "WHEN",
            'From then on: 2026-11-25, "2026-11-25 10:00" (UTC), 12h, "3 days ago", yesterday.',
        ),
        ("--until", "WHEN", "Before then."),
        ("--installation", "ID", "Of this installation."),
        ("--operation", "NAME", "Of this operation; * stands for any characters."),
        ("--status", "STATUS", "With this status, or as in 4xx."),
        ("--method", "METHOD", "With this method."),
        ("--caller", "WHO", "Of this caller, or from this address."),
        ("--request-id", "ID", "With this X-Request-Id."),
    )
    command = click.option("--writes", is_flag=True, help="Only what changes state.")(command)
    for flag, metavar, meaning in reversed(options):
        command = click.option(flag, metavar=metavar, help=meaning)(command)
    return command


def _wanted(options: dict[str, Any], *, kinds: Sequence[str] = ("request",)) -> RecordFilter:
    from icr_proxy.audit_tools.query import RecordFilter, read_status  # noqa: PLC0415

    moments = {name: _moment(name, options[name]) for name in ("since", "until")}
    if moments["since"] and moments["until"] and moments["since"] >= moments["until"]:
        raise click.UsageError(
            f"--since ({moments['since']}) is not before --until ({moments['until']})"
        )
    try:
        status = read_status(options["status"]) if options["status"] else None
    except ValueError as exc:
        raise click.UsageError(f"that {exc}") from None
    return RecordFilter(
        kinds=frozenset(kinds),
        status=status,
        writes=options["writes"],
        method=options["method"].upper() if options["method"] else None,
        **{name: options[name] for name in ("installation", "operation", "caller", "request_id")},
        **moments,
    )


def _moment(name: str, text: str | None) -> str | None:
    from icr_proxy.audit_tools.time_range import read_moment  # noqa: PLC0415

    try:
        return read_moment(text, now=_now()) if text is not None else None
    except ValueError as exc:
        raise click.UsageError(f"--{name} {text!r} {exc}") from None


def _records(paths: Sequence[Path], wanted: RecordFilter) -> Iterator[Entry]:
    return wanted.select(_all_records(paths))


def _all_records(paths: Sequence[Path]) -> Iterator[Entry]:
    from icr_proxy.audit_tools.query import UnreadableError, read_records  # noqa: PLC0415

    try:
        yield from read_records(_files(paths))
    except UnreadableError as error:
        raise click.ClickException(str(error)) from None


def _files(paths: Sequence[Path]) -> list[Path]:
    from icr_proxy.audit_tools.verification import UncheckableError, find_files  # noqa: PLC0415

    try:
        return find_files(paths)
    except UncheckableError as error:
        raise click.ClickException(str(error)) from None


@click.command(
    cls=Command,
    epilog="""
    icr-proxy audit query DIR --since 7d --writes
    icr-proxy audit query DIR --request-id 5b0e… --json
    icr-proxy audit query DIR --sql "SELECT caller, count(*) FROM requests GROUP BY ALL"
    """,
)
@_source
@_filters
@click.option("--limit", default=100, show_default=True, help="The newest so many; 0 is all.")
@click.option("--intents", is_flag=True, help="Also what was about to be sent.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines in place of a table.")
@click.option("--sql", metavar="SQL", help="Ask DuckDB; views `audit` and `requests`.")
def query(
    paths: tuple[Path, ...],
    *,
    limit: int,
    intents: bool,
    as_json: bool,
    sql: str | None,
    **options: Any,
) -> None:
    """Find requests in a trail. It does not verify: `audit verify` does.

    Exits with 0, or 1 if nothing is found.
    """
    if sql is not None:
        rows = _sql(paths, sql)
        _print(rows, list(rows[0]) if rows else [], as_json=as_json)
        return
    wanted = _wanted(options, kinds=("request", "intent") if intents else ("request",))
    found = deque(_records(paths, wanted), maxlen=limit or None)
    columns = ("kind", *QUERY_COLUMNS) if intents else QUERY_COLUMNS
    _print(list(found), columns, as_json=as_json)
    sys.exit(0 if found else FAILED)


def _sql(paths: Sequence[Path], sql: str) -> list[Entry]:
    from icr_proxy.audit_tools.export import SqlError, open_database, run_sql  # noqa: PLC0415
    from icr_proxy.files import open_to_read  # noqa: PLC0415

    files = _files(paths)
    try:
        for path in files:
            open_to_read(path).close()
        return run_sql(open_database(files), sql)
    except SqlError as error:
        raise click.ClickException(str(error)) from None
    except OSError as exc:
        raise click.ClickException(f"{exc.filename} cannot be read: {exc.strerror}") from None


def _print(rows: Sequence[Entry], columns: Sequence[str], *, as_json: bool) -> None:
    from icr_proxy.audit_tools.query import as_text  # noqa: PLC0415

    if as_json:
        for row in rows:
            click.echo(json.dumps(row, default=str))
        return
    used = [name for name in columns if any(row.get(name) is not None for row in rows)]
    click.echo(as_text([{name: row.get(name) for name in used} for row in rows]), nl=False)


def _output(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write there in place of standard output.",
    )(command)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    _write_pieces([text.encode()], out)


def _write_pieces(pieces: Iterable[bytes], out: Path) -> None:
    from icr_proxy.files import write_output  # noqa: PLC0415

    try:
        write_output(out, pieces)
    except OSError as exc:
        raise click.ClickException(f"{out} cannot be written: {exc.strerror}") from None
    click.echo(f"Written to {out}", err=True)


@click.command(
    cls=Command,
    epilog="""
    icr-proxy audit report DIR --since 2026-10-01 --until 2026-11-01
    icr-proxy audit report DIR --format html --out october.html
    """,
)
@_source
@_filters
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "csv", "markdown", "html"], case_sensitive=False),
    default="text",
    show_default=True,
    help="Of the report; HTML has charts.",
)
@_output
def report(paths: tuple[Path, ...], *, form: str, out: Path | None, **options: Any) -> None:
    """Say who moved or retired what, by installation and day, and what became of it.

    Everything that changes state is in it, also what was sent and never answered.
    """
    from icr_proxy.audit_tools.query import as_csv, as_markdown, as_text  # noqa: PLC0415
    from icr_proxy.audit_tools.report import (  # noqa: PLC0415
        CHANGE_COLUMNS,
        count_changes,
        find_changes,
        render_page,
    )
    from icr_proxy.clock import stamp  # noqa: PLC0415

    options["writes"] = True
    wanted = _wanted(options, kinds=("request", "intent"))
    found = find_changes(_all_records(paths), wanted=wanted.matches)
    sums, rows = count_changes(found), [change.row() for change in found]
    if form == "csv":
        text = as_csv(rows, CHANGE_COLUMNS)
    elif form == "markdown":
        text = f"# Changes\n\n{as_markdown(sums)}\n## Each\n\n{as_markdown(rows)}"
    elif form == "html":
        text = render_page(found, sums, title="Changes through icr-proxy", made=stamp(_now()))
    else:
        text = f"{as_text(sums)}\n{as_text(rows)}" if found else "No changes.\n"
    _write(text, out)


@click.command(
    cls=Command,
    epilog="""
    icr-proxy audit export DIR --format har --out requests.har
    icr-proxy audit export DIR --format parquet --out requests.parquet --no-redact
    """,
)
@_source
@_filters
@click.option(
    "--format",
    "form",
    type=click.Choice(["har", "csv", "parquet"], case_sensitive=False),
    default="har",
    show_default=True,
    help="HAR 1.2, CSV, or Parquet (with DuckDB).",
)
@click.option(
    "--redact/--no-redact",
    default=True,
    show_default=True,
    help="Hide values of queries, callers and their addresses.",
)
@click.option(
    "--base-url",
    default="https://api.carbonregistry.com",
    show_default=True,
    help="What URLs in a HAR begin with.",
)
@_output
def export(
    paths: tuple[Path, ...],
    *,
    form: str,
    redact: bool,
    base_url: str,
    out: Path | None,
    **options: Any,
) -> None:
    """Write requests in a form that other tools read."""
    from icr_proxy.audit.records import RequestRecord  # noqa: PLC0415
    from icr_proxy.audit_tools.export import as_har, redact_record, write_parquet  # noqa: PLC0415
    from icr_proxy.audit_tools.query import as_csv  # noqa: PLC0415

    records = _records(paths, _wanted(options))
    if form == "har":
        archive = as_har(records, base_url=base_url.rstrip("/"), redact=redact)
        _write(json.dumps(archive, indent=1) + "\n", out)
        return
    shown = (redact_record(record) if redact else record for record in records)
    if form == "csv":
        names = ["seq", "kind", *RequestRecord.__struct_fields__, "hash"]
        _write(as_csv(list(shown), names), out)
        return
    if out is None:
        raise click.UsageError("--out FILE is needed for Parquet")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "records.parquet"
        write_parquet(shown, made, scratch=Path(scratch) / "records.jsonl")
        with made.open("rb") as file:
            _write_pieces(iter(lambda: file.read(1 << 20), b""), out)


@click.command(
    "suggest-policy",
    cls=Command,
    epilog="""
    icr-proxy audit suggest-policy DIR --since 30d
    icr-proxy audit suggest-policy DIR --together >> icr-proxy.yaml
    """,
)
@_source
@_filters
@click.option("--together", is_flag=True, help="The same rules for all installations.")
@_output
def suggest_policy(
    paths: tuple[Path, ...], *, together: bool, out: Path | None, **options: Any
) -> None:
    """Write the smallest allow-list that the recorded traffic needs, as `policy` for the file.

    With it, in comments: how much each rule lets pass, what of the recorded traffic would be
    refused, and which operations nobody used.
    """
    from icr_proxy.audit_tools.policy_suggestion import as_yaml, suggest_rules  # noqa: PLC0415

    records = _records(paths, _wanted(options))
    suggested = suggest_rules(records, per_installation=not together)
    if not suggested.total:
        raise click.ClickException("there are no such requests in this trail")
    _write(as_yaml(suggested), out)
