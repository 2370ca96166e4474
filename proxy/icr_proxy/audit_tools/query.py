"""Queries of a trail: reading and filtering records, following the trail, writing tables."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from icr_proxy.audit.records import tagged
from icr_proxy.audit.segments import list_segments
from icr_proxy.files import open_to_read
from icr_proxy.identifiers import canonical_id
from icr_proxy.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

Entry = dict[str, Any]

LINE_MOST = 16 << 20  # bytes; a longer line is no record
ENVELOPE = frozenset({"seq", "prev", "kind", "hash", "mac", "time"})
"""Fields of every record, which tell nothing about what happened."""
_DECODER = msgspec.json.Decoder(Entry)
_KINDS = dict(tagged())

_STATUS = re.compile(r"[1-5](?:[0-9]{2}|xx)")


class UnreadableError(Exception):
    """A file of a trail cannot be read."""


def read_records(files: Sequence[Path]) -> Iterator[Entry]:
    """Return all records, oldest first; other lines are skipped.

    Raises:
        UnreadableError: a file cannot be read.
    """
    for path in files:
        try:
            with open_to_read(path) as file:
                yield from read_open_file(file)
        except OSError as exc:
            raise UnreadableError(f"{path} cannot be read: {exc.strerror}") from None


def read_open_file(file: BinaryIO) -> Iterator[Entry]:
    """Return the further records of an open file, up to a line that is too long for a record."""
    while line := file.readline(LINE_MOST):
        if len(line) == LINE_MOST:
            return
        record = parse_record(line)
        if record is not None:
            yield record


def parse_record(line: bytes) -> Entry | None:
    """Parse a line; `None` if it is no record. Fields have the types that the writer gives them.

    So other code need not expect other types; `audit verify` reports what was changed.
    """
    try:
        record = _DECODER.decode(line)
        kind = record.get("kind")
        if kind in _KINDS:  # another kind may be of a later version
            msgspec.convert(record, _KINDS[kind])
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return None
    return record if type(record.get("seq")) is int and isinstance(kind, str) else None


def read_status(text: str) -> str:
    """Read `404` or `4xx`.

    Raises:
        ValueError: it is neither.
    """
    if not _STATUS.fullmatch(text):
        raise ValueError("is no status; write 404 or 4xx")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """A filter of records; `None` or empty matches anything."""

    kinds: frozenset[str] = frozenset({"request"})
    since: str | None = None
    until: str | None = None
    installation: str | None = None
    operation: str | None = None
    """`*` stands for any characters."""
    status: str | None = None
    method: str | None = None
    caller: str | None = None
    """A caller's name, or the address of a peer."""
    request_id: str | None = None
    writes: bool = False

    def matches(self, record: Entry) -> bool:
        """Tell whether a record passes."""
        return (
            record.get("kind") in self.kinds
            and (self.since is None or record.get("time", "") >= self.since)
            and (self.until is None or record.get("time", "") < self.until)
            and (
                self.installation is None
                or installation_of(record) == canonical_id(self.installation)
            )
            and (self.request_id is None or record.get("request_id") == self.request_id)
            and (self.method is None or record.get("method") == self.method)
            and (self.caller is None or self.caller in (record.get("caller"), record.get("peer")))
            and (not self.writes or record.get("changes_state") is True)
            and (self.status is None or _has_status(record, self.status))
            and (
                self.operation is None or fnmatchcase(str(record.get("operation")), self.operation)
            )
        )

    def select(self, records: Iterable[Entry]) -> Iterator[Entry]:
        """Return the records that pass."""
        return (record for record in records if self.matches(record))


def installation_of(record: Entry) -> str:
    """Return the installation of a record, or "". Old records spell an ID as the client did."""
    return canonical_id(str(record.get("installation") or ""))


def _has_status(record: Entry, status: str) -> bool:
    have = str(record.get("status", ""))
    return have == status or (status.endswith("xx") and have[:1] == status[0])


# A spreadsheet takes these for a formula (CWE-1236), and clients choose paths and IDs.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format a table for a terminal."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in [names, *cells]) for at in range(len(names))]
    lines = [names, ["-" * width for width in widths], *cells]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def as_csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Format a table for a spreadsheet, which must not execute any of it."""
    out = io.StringIO()
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _without_formula(row.get(name)) for name in names} for row in rows)
    return out.getvalue()


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format a table for a document."""
    if not rows:
        return "None.\n"
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[_escaped(row.get(name)) for name in names] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else printable(str(value), instead="\ufffd")


def _escaped(value: object) -> str:
    text = _cell(value)
    for char in "\\`*_[]<>|":
        text = text.replace(char, f"\\{char}")
    return text


def _without_formula(value: object) -> object:
    text = value if isinstance(value, str) else None
    return f"'{text}" if text is not None and text.startswith(_FORMULA) else value


FILES_READ_BACK = 2  # for the newest records; all segments may be gigabytes
CLIENT_ERROR, SERVER_ERROR = 400, 500
PLAIN, GREEN, YELLOW, RED, DIM = "", "32", "33", "31", "2"


class Tail:
    """Follows a trail: reads what was added; a torn record waits for its rest."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._name = ""
        self._rest = b""

    def start(self, count: int) -> list[Entry]:
        """Return the newest `count` records; `read` goes on from there."""
        earlier = list_segments(self._directory)[:-FILES_READ_BACK]
        if earlier:
            self._name = earlier[-1].name
        newest: deque[Entry] = deque(maxlen=count)
        newest.extend(self.read())
        return list(newest)

    def read(self) -> Iterator[Entry]:
        """Return new records."""
        while True:
            # Before the rest is read: once there is a next segment, nothing is added to this one.
            later = self._next_file()
            if self._file is not None:
                yield from self._read_lines(self._file)
            if later is None:
                return
            self.close()
            self._name, self._rest = later.name, b""
            self._file = open_to_read(later)

    def _next_file(self) -> Path | None:
        files = list_segments(self._directory)
        return next((path for path in files if path.name > self._name), None)

    def _read_lines(self, file: BinaryIO) -> Iterator[Entry]:
        while data := file.read(1 << 20):
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > LINE_MOST:  # this is no segment
                self._rest = b""
                file.seek(0, os.SEEK_END)
            for line in lines:
                record = parse_record(line)
                if record is not None:  # `audit verify` reports the others
                    yield record

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def format_record(record: Entry, *, colours: bool) -> str:
    """Format a record as one line for a person."""
    kind = record.get("kind", "?")
    if kind in ("request", "intent"):
        text, colour = _format_request(record), _colour(record)
    else:
        facts = (f"{name}={value}" for name, value in record.items() if name not in ENVELOPE)
        text, colour = f"{kind:<8} {' '.join(facts)}", DIM
    line = f"{record.get('seq', '?'):>8} {record.get('time', '')!s:.23} {text}"
    line = printable(line, instead="\ufffd")
    return f"\x1b[{colour}m{line}\x1b[0m" if colours and colour else line


def _format_request(record: Entry) -> str:
    query = record.get("query")
    target = f"{record.get('path', '')}{'' if query is None else f'?{query}'}"
    ended = record.get("status", "…")
    code = record.get("code")
    return (
        f"{record['kind']:<8} {ended} {record.get('method')} {target}"
        f" {record.get('operation')} inst={record.get('installation')}"
        f" caller={record.get('caller') or record.get('peer')} id={record.get('request_id')}"
        f"{f' code={code}' if code else ''}"
    )


def _colour(record: Entry) -> str:
    status = record.get("status", 0)
    if status >= SERVER_ERROR:
        return RED
    if status >= CLIENT_ERROR:
        return YELLOW
    return GREEN if record.get("changes_state") else PLAIN
