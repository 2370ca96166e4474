"""Reads records back, by what is asked about them. It does not verify: `audit verify` does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from icr_proxy.audit.records import tagged
from icr_proxy.files import open_to_read
from icr_proxy.identifiers import canonical_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

Entry = dict[str, Any]

LINE_MOST = 16 << 20  # bytes; what is longer is no record
_DECODER = msgspec.json.Decoder(Entry)
_KINDS = dict(tagged())

_STATUS = re.compile(r"[1-5](?:[0-9]{2}|xx)")


class UnreadableError(Exception):
    """A file of a trail cannot be read."""


def read_records(files: Sequence[Path]) -> Iterator[Entry]:
    """Give all records, oldest first; what is no record is passed over.

    Raises:
        UnreadableError: a file cannot be read.
    """
    for path in files:
        try:
            with open_to_read(path) as file:
                yield from records_of(file)
        except OSError as exc:
            raise UnreadableError(f"{path} cannot be read: {exc.strerror}") from None


def records_of(file: BinaryIO) -> Iterator[Entry]:
    """Give the records from here to the end of an open file, or to what is no line of a trail."""
    while line := file.readline(LINE_MOST):
        if len(line) == LINE_MOST:
            return
        record = parse_record(line)
        if record is not None:
            yield record


def parse_record(line: bytes) -> Entry | None:
    """Read one line; `None` if it is no record. Fields have the types that the writer gives them.

    Whoever reads further need not expect anything else; `audit verify` tells what was changed.
    """
    try:
        record = _DECODER.decode(line)
        kind = record.get("kind")
        if kind in _KINDS:  # else it may be of a later version
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
class Wanted:
    """What a record has to be like; what is None or empty may be anything."""

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
        """Tell whether a record is wanted."""
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

    def among(self, records: Iterable[Entry]) -> Iterator[Entry]:
        """Give those of them that are."""
        return (record for record in records if self.matches(record))


def installation_of(record: Entry) -> str:
    """Give the installation of a record, if any. Older records spell an ID as the caller did."""
    return canonical_id(str(record.get("installation") or ""))


def _has_status(record: Entry, status: str) -> bool:
    have = str(record.get("status", ""))
    return have == status or (status.endswith("xx") and have[:1] == status[0])
