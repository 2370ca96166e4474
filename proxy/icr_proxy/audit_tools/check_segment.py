"""The check of one segment of a trail, line by line."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from icr_proxy.audit.chain import (
    FIRST_KIND,
    LAST_KIND,
    BrokenRecordError,
    MacKey,
    read_link,
    read_next,
)
from icr_proxy.audit_tools.findings import CheckedSegment, TrailFinding
from icr_proxy.audit_tools.query import LINE_MOST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from icr_proxy.audit.chain import ChainLink
    from icr_proxy.audit_tools.findings import Kind

USUAL = frozenset({"request", "intent"})
EVENTS = frozenset({"repair", "rewound", "moved", "gap", "pruned"})
FINDINGS_MOST = 1000  # of one segment; a file of another kind would have one for each line


def check_segment(
    name: str, file: BinaryIO, *, keys: Mapping[str, bytes], wanted: frozenset[int] = frozenset()
) -> CheckedSegment:
    """Check each line, and that it follows from the line before.

    `keys` are MAC keys by fingerprint; `wanted` are numbers of records whose hash is asked for.
    """
    checked = CheckedSegment(name=name, size=file.seek(0, os.SEEK_END))
    file.seek(0)
    header = _parse_record(file.readline(LINE_MOST))
    file.seek(0)
    if header.get("kind") == FIRST_KIND:
        checked.key, checked.trail = _text_field(header, "key"), _text_field(header, "trail")
    key = keys.get(checked.key) if checked.key is not None else None
    checked.is_checked = key is not None
    mac_key = MacKey(key) if key is not None else None
    _SegmentCheck(checked, mac_key=mac_key, wanted=wanted).run(file)
    return checked


def _text_field(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    return value if isinstance(value, str) else None


def _parse_record(line: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


class _SegmentCheck:
    """One pass over the lines of a segment."""

    def __init__(
        self, checked: CheckedSegment, *, mac_key: MacKey | None, wanted: frozenset[int]
    ) -> None:
        self._checked = checked
        self._mac_key = mac_key
        self._wanted = wanted
        self._seen: dict[int, str] = {}
        self._broken = 0  # lines since the last record
        self._ended = False

    def run(self, file: BinaryIO) -> None:
        checked, seen = self._checked, self._seen
        may_be_next = checked.key is None or self._mac_key is not None
        first = line = b""
        number = 0
        while read := file.readline(LINE_MOST):
            number += 1
            if not read.endswith(b"\n"):
                self._add_torn(number, read)
                break
            line = read[:-1]
            first = first or line
            last = checked.last
            link = None
            if last is not None and may_be_next and not self._broken and not self._ended:
                link = read_next(line, after=last, mac_key=self._mac_key)
            if link is not None:  # the usual case, as fast as it can be
                seen[link.seq] = link.hash
                checked.last = link
            else:
                link = self._check_line(number, line)
            if link is not None and (link.kind not in USUAL or link.seq in self._wanted):
                self._add_event(number, link, line)
        checked.records = len(seen)
        checked.broken_at_end = self._broken
        self._drop_moved()
        checked.since, checked.until = _time(first), _time(line)

    def _add_torn(self, number: int, read: bytes) -> None:
        """Note bytes without a line break: a torn record, or a file of another kind."""
        self._checked.torn = len(read)
        if len(read) == LINE_MOST:
            self._add("changed", number, None, "is longer than any record; the rest was not read")

    def _add_event(self, number: int, link: ChainLink, line: bytes) -> None:
        self._ended = self._ended or link.kind == LAST_KIND
        if link.kind == FIRST_KIND and number > 1:
            self._add("inserted", number, link.seq, "begins a file: two were put together in one")
        if link.kind in EVENTS:
            told = {"seq": link.seq, "kind": link.kind, "hash": link.hash}
            self._checked.events.append({**_parse_record(line), **told})
        if link.seq in self._wanted:
            self._checked.hashes[link.seq] = link.hash

    def _check_line(self, number: int, line: bytes) -> ChainLink | None:
        """Check a line that is not simply the next record."""
        try:
            link = read_link(line, mac_key=self._mac_key)
        except BrokenRecordError as error:
            self._add(error.kind, number, None, error)
            self._broken += 1
            return None
        if self._checked.key is not None and not link.sealed:
            self._add("forged", number, link.seq, "has no MAC, but its file has a key")
        if self._ended:
            self._add("inserted", number, link.seq, "stands after the end of the file")
        self._check_order(number, link)
        return link

    def _check_order(self, number: int, link: ChainLink) -> None:
        """Compare a record with the one before; unreadable lines between them count as records."""
        checked, last = self._checked, self._checked.last
        broken, self._broken = self._broken, 0
        if last is None:
            checked.first = link if not broken else None
        elif link.seq == last.seq + 1 + broken:
            if not broken and link.prev != last.hash:
                self._add("changed", number, link.seq, "does not follow from the record before it")
        elif link.seq > last.seq:
            missing = f"{last.seq + 1} to {link.seq - 1}"
            self._add("removed", number, link.seq, f"records {missing} are not before it")
        else:
            self._add(*self._classify_misplaced(number, link))
        self._seen.setdefault(link.seq, link.hash)
        if last is None or link.seq > last.seq:
            checked.last = link

    def _classify_misplaced(self, number: int, link: ChainLink) -> tuple[Kind, int, int, str]:
        there = self._seen.get(link.seq)
        if there is None:
            return "reordered", number, link.seq, "stands behind records that came after it"
        if there == link.hash:
            return "repeated", number, link.seq, "is there twice"
        return "inserted", number, link.seq, "has the number of another record"

    def _drop_moved(self) -> None:
        """Drop findings that records were removed, if they came later: that is reported, too."""
        checked, seen = self._checked, self._seen
        before = 0
        kept = []
        for finding in checked.findings:
            if finding.kind == "removed" and finding.seq is not None:
                before = int(finding.detail.split()[1])
                if all(seq in seen for seq in range(before, finding.seq)):
                    continue
            kept.append(finding)
        checked.findings[:] = kept

    def _add(self, kind: Kind, line: int, seq: int | None, detail: object) -> None:
        if len(self._checked.findings) < FINDINGS_MOST:
            self._checked.findings.append(
                TrailFinding(kind, self._checked.name, line, seq, str(detail))
            )


def _time(line: bytes) -> str | None:
    return _text_field(_parse_record(line), "time")
