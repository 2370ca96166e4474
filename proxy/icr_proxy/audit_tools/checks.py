"""Checks of a trail: each file line by line, then whether the files are one chain."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from icr_proxy.audit.chain import (
    CLOSES,
    GENESIS,
    OPENS,
    BrokenRecordError,
    ChainLink,
    Seals,
    follow,
    unseal,
)
from icr_proxy.audit.segments import NAME

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import BinaryIO

Kind = Literal[
    "changed", "removed", "reordered", "inserted", "repeated", "cut", "forged", "rewound"
]


@dataclass(frozen=True, slots=True)
class TrailFinding:
    """A finding about a trail: what, where, and why."""

    kind: Kind
    file: str
    line: int | None
    seq: int | None
    detail: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        number = "" if self.seq is None else f" (record {self.seq})"
        return f"{self.kind:<9} {place}{number}: {self.detail}"


@dataclass(frozen=True, slots=True)
class WitnessedRecord:
    """A record known from elsewhere: its number and how its hash begins."""

    seq: int
    prefix: str
    source: str
    trail: str | None = None
    """The trail that it was in, if that is known."""


@dataclass(slots=True, kw_only=True)
class CheckedSegment:
    """The result of checking one segment by itself."""

    name: str
    size: int
    first: ChainLink | None = None
    last: ChainLink | None = None
    records: int = 0
    broken_at_end: int = 0
    """Lines after `last` that are no records."""
    torn: int = 0
    """Bytes after the last line break."""
    key: str | None = None
    """Fingerprint of the key that its header names."""
    trail: str | None = None
    """ID of the trail that its header names."""
    is_checked: bool = False
    """Whether the MACs were."""
    findings: list[TrailFinding] = field(default_factory=list)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    """Records that a reader of the verdict should know of."""
    marks: dict[int, str] = field(default_factory=dict)
    """Hashes of the records that were asked for."""
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailVerdict:
    """The result of checking a whole trail."""

    files: int
    records: int
    size: int
    last: ChainLink | None
    since: str | None
    until: str | None
    keys: tuple[str, ...]
    """Fingerprints of the keys that MACs were checked with."""
    unchecked: tuple[str, ...]
    """Files whose MACs were not."""
    unbound: tuple[str, ...]
    """Those of them that no file whose MACs were checked follows: nothing vouches for them."""
    trail: str | None
    """ID of the trail."""
    findings: tuple[TrailFinding, ...]
    events: tuple[Mapping[str, Any], ...]
    witnesses: tuple[WitnessedRecord, ...]


def check_chain(
    files: Sequence[CheckedSegment],
    *,
    keys: Collection[str] = (),
    witnesses: Sequence[WitnessedRecord] = (),
    is_live: bool = False,
    is_partial: bool = False,
    accepted: Sequence[WitnessedRecord] = (),
    aside: Sequence[TrailFinding] = (),
) -> TrailVerdict:
    """Give the verdict on a trail.

    `keys` are the fingerprints of the keys at hand; `is_live`: a process is writing the last file;
    `is_partial`: the oldest files are known to be elsewhere; `accepted` are `rewound` records that
    the auditor knows of; `aside` is what was found about bytes that were set aside.
    """
    ordered = sorted(files, key=_place)
    if is_live and ordered and ordered[-1].first is None and not ordered[-1].findings:
        ordered.pop()  # was made this moment
    findings = [
        *_beginning(ordered, is_partial=is_partial),
        *(finding for each in ordered for finding in _by_itself(each)),
        *_joints(ordered),
        *_ends(ordered, is_live=is_live),
        *_seals(ordered, keys=keys),
        *_trails(ordered),
        *_rewinds(ordered, accepted),
        *aside,
        *_memories(ordered, witnesses),
    ]
    last = next((each.last for each in reversed(ordered) if each.last is not None), None)
    return TrailVerdict(
        files=len(ordered),
        records=sum(each.records for each in ordered),
        size=sum(each.size for each in ordered),
        last=last,
        since=next((each.since for each in ordered if each.since), None),
        until=next((each.until for each in reversed(ordered) if each.until), None),
        keys=tuple(sorted({each.key for each in ordered if each.is_checked and each.key})),
        unchecked=tuple(each.name for each in ordered if each.key and not each.is_checked),
        unbound=tuple(_unbound(ordered)),
        trail=next((each.trail for each in reversed(ordered) if each.trail), None),
        findings=tuple(findings),
        events=tuple(event for each in ordered for event in each.events),
        witnesses=tuple(witnesses),
    )


def _place(checked: CheckedSegment) -> tuple[int, str]:
    named = NAME.fullmatch(checked.name)
    if checked.first is not None:
        return checked.first.seq, checked.name
    return int(named[1]) if named else 0, checked.name


def _by_itself(checked: CheckedSegment) -> Iterator[TrailFinding]:
    yield from checked.findings
    named = NAME.fullmatch(checked.name)
    first = checked.first
    if first is None:
        if not checked.findings:
            yield TrailFinding("cut", checked.name, None, None, "has no record")
        return
    if first.kind != OPENS:
        yield TrailFinding("removed", checked.name, 1, first.seq, "the header before it is missing")
    elif named is not None and int(named[1]) != first.seq:
        yield TrailFinding("reordered", checked.name, 1, first.seq, "is not the file of this name")


def _beginning(files: Sequence[CheckedSegment], *, is_partial: bool) -> Iterator[TrailFinding]:
    first = files[0] if files else None
    if first is None or first.first is None:  # what is unreadable is told elsewhere
        return
    seq, prev = first.first.seq, first.first.prev
    if seq == 1:
        if prev != GENESIS:
            yield TrailFinding("changed", first.name, 1, 1, "says that something came before it")
        return
    told = (event.get("before") for each in files for event in each.events)
    pruned = (before for before in told if isinstance(before, int))
    if not is_partial and seq > max(pruned, default=1):
        detail = f"records 1 to {seq - 1} are not there, and nothing says that they were deleted"
        yield TrailFinding("removed", first.name, 1, seq, detail)


def _joints(files: Sequence[CheckedSegment]) -> Iterator[TrailFinding]:
    """Compare the first record of each file with the last of the one before."""
    before: CheckedSegment | None = None
    for each in files:
        if each.first is None:
            before = None if each.findings else before  # what is unreadable was told
            continue
        if before is not None and before.last is not None:
            yield from _joint(before, each)
        if each.last is not None and (
            before is None or before.last is None or each.last.seq > before.last.seq
        ):
            before = each


def _joint(before: CheckedSegment, after: CheckedSegment) -> Iterator[TrailFinding]:
    last, first = before.last, after.first
    if last is None or first is None:
        return
    broken = before.broken_at_end + (1 if before.torn else 0)
    if first.seq == last.seq + 1:
        if first.prev != last.hash:
            detail = f"does not follow from the last record of {before.name}"
            yield TrailFinding("changed", after.name, 1, first.seq, detail)
    elif first.seq > last.seq:
        if first.seq != last.seq + 1 + broken:
            missing = f"records {last.seq + 1} to {first.seq - 1} are missing before it"
            yield TrailFinding("removed", after.name, 1, first.seq, missing)
    else:
        is_copy = before.first is not None and first.hash == before.first.hash
        kind: Kind = "repeated" if is_copy else "inserted"
        yield TrailFinding(
            kind, after.name, 1, first.seq, f"holds records that {before.name} has, too"
        )


def _ends(files: Sequence[CheckedSegment], *, is_live: bool) -> Iterator[TrailFinding]:
    for each in files:
        if each.torn and not (is_live and each is files[-1]):
            detail = (
                f"ends within a record ({each.torn} bytes of it): cut, or a crash tore it; after a"
                " crash the next start sets it aside and records that"
            )
            yield TrailFinding("cut", each.name, each.records + 1, None, detail)


def _seals(files: Sequence[CheckedSegment], *, keys: Collection[str]) -> Iterator[TrailFinding]:
    """Find files without a seal at the end of a sealed trail.

    What a sealed file follows from is as good as sealed; nothing vouches for what comes last. With
    a wrong key nothing is known: `_unbound` tells that, and it is no finding.
    """
    is_wrong_key = any(each.key for each in files) and not any(each.is_checked for each in files)
    if not keys or is_wrong_key:
        return
    for each in reversed(files):
        if each.is_checked:
            return
        if each.first is not None and each.key is None:
            detail = "is not sealed, and nothing sealed with your key follows it"
            yield TrailFinding("forged", each.name, None, None, detail)


def _unbound(files: Sequence[CheckedSegment]) -> Iterator[str]:
    for each in reversed(files):
        if each.is_checked:
            return
        if each.key:
            yield each.name


def _trails(files: Sequence[CheckedSegment]) -> Iterator[TrailFinding]:
    """Compare the IDs of the trail; files from before there were any have none."""
    named = [each for each in files if each.trail is not None]
    for each in named[1:]:
        if each.trail != named[0].trail:
            seq = each.first.seq if each.first is not None else None
            detail = f"belongs to trail {each.trail}, but {named[0].name} to {named[0].trail}"
            yield TrailFinding("inserted", each.name, 1, seq, detail)


def _rewinds(
    files: Sequence[CheckedSegment], accepted: Sequence[WitnessedRecord]
) -> Iterator[TrailFinding]:
    """Tell where the trail went on though its anchor knew that its end was missing."""
    for each in files:
        for event in each.events:
            seq, digest = event["seq"], event["hash"]
            if event["kind"] != "rewound" or any(
                known.seq == seq and digest.startswith(known.prefix) for known in accepted
            ):
                continue
            reason = event.get("reason")
            known = event.get("known_seq")
            detail = (
                f"goes on after record {event.get('last')}, but the anchor"
                f" {f'knew record {known}' if known is not None else 'could not be read'};"
                f" {f'accepted by an operator: {reason}' if reason else 'nobody accepted that'}"
                f" (if it is explained: --accept-rewound {seq}:{digest[:12]})"
            )
            yield TrailFinding("rewound", each.name, None, seq, detail)


def _memories(
    files: Sequence[CheckedSegment], witnesses: Sequence[WitnessedRecord]
) -> Iterator[TrailFinding]:
    last = max((each.last.seq for each in files if each.last is not None), default=0)
    first = min((each.first.seq for each in files if each.first is not None), default=1)
    marks = {seq: text for each in files for seq, text in each.marks.items()}
    name = files[-1].name if files else "-"
    for witness in witnesses:
        if witness.seq > last:
            detail = f"the trail ends with record {last}, but {witness.source} knows {witness.seq}"
            yield TrailFinding("cut", name, None, witness.seq, detail)
        elif witness.seq in marks:
            if not marks[witness.seq].startswith(witness.prefix):
                detail = f"is not the record that {witness.source} knows{_of(witness, files)}"
                yield TrailFinding("changed", name, None, witness.seq, detail)
        elif witness.seq >= first:
            detail = f"is missing, but {witness.source} knows it"
            yield TrailFinding("removed", name, None, witness.seq, detail)


def _of(witness: WitnessedRecord, files: Sequence[CheckedSegment]) -> str:
    trails = {each.trail for each in files}
    return f", which is of trail {witness.trail}" if witness.trail not in {None, *trails} else ""


USUAL = frozenset({"request", "intent"})
TOLD = frozenset({"repair", "rewound", "moved", "gap", "pruned"})
LINE_MOST = 16 << 20  # bytes; a record has the target of a request and little else
MOST_FINDINGS = 1000  # of one file; a file of another kind would have one for each line


def check_segment(
    name: str, file: BinaryIO, *, keys: Mapping[str, bytes], wanted: frozenset[int] = frozenset()
) -> CheckedSegment:
    """Check every line, and that each follows from the one before.

    `keys` are MAC keys by fingerprint; `wanted` are numbers of records whose hash is asked for.
    """
    checked = CheckedSegment(name=name, size=file.seek(0, os.SEEK_END))
    file.seek(0)
    header = _parsed(file.readline(LINE_MOST))
    file.seek(0)
    if header.get("kind") == OPENS:
        checked.key, checked.trail = _text(header, "key"), _text(header, "trail")
    key = keys.get(checked.key) if checked.key is not None else None
    checked.is_checked = key is not None
    seals = Seals(key) if key is not None else None
    _Walk(checked, seals=seals, wanted=wanted).go(file)
    return checked


def _text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    return value if isinstance(value, str) else None


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


class _Walk:
    """One way through the lines of a file."""

    def __init__(
        self, checked: CheckedSegment, *, seals: Seals | None, wanted: frozenset[int]
    ) -> None:
        self._checked = checked
        self._seals = seals
        self._wanted = wanted
        self._seen: dict[int, str] = {}
        self._broken = 0  # lines since the last record
        self._ended = False

    def go(self, file: BinaryIO) -> None:
        checked, seen = self._checked, self._seen
        may_be_next = checked.key is None or self._seals is not None
        first = line = b""
        number = 0
        while read := file.readline(LINE_MOST):
            number += 1
            if not read.endswith(b"\n"):
                self._stop(number, read)
                break
            line = read[:-1]
            first = first or line
            last = checked.last
            link = None
            if last is not None and may_be_next and not self._broken and not self._ended:
                link = follow(line, after=last, seals=self._seals)
            if link is not None:  # the usual case, as fast as it can be
                seen[link.seq] = link.hash
                checked.last = link
            else:
                link = self._look_closer(number, line)
            if link is not None and (link.kind not in USUAL or link.seq in self._wanted):
                self._note(number, link, line)
        checked.records = len(seen)
        checked.broken_at_end = self._broken
        self._drop_what_only_moved()
        checked.since, checked.until = _time(first), _time(line)

    def _stop(self, number: int, read: bytes) -> None:
        """Stop at what no line break ends: the end of the file, or no file of a trail at all."""
        self._checked.torn = len(read)
        if len(read) == LINE_MOST:
            self._find("changed", number, None, "is longer than any record; the rest was not read")

    def _note(self, number: int, link: ChainLink, line: bytes) -> None:
        self._ended = self._ended or link.kind == CLOSES
        if link.kind == OPENS and number > 1:
            self._find("inserted", number, link.seq, "begins a file: two were put together in one")
        if link.kind in TOLD:
            told = {"seq": link.seq, "kind": link.kind, "hash": link.hash}
            self._checked.events.append({**_parsed(line), **told})
        if link.seq in self._wanted:
            self._checked.marks[link.seq] = link.hash

    def _look_closer(self, number: int, line: bytes) -> ChainLink | None:
        """Say what is wrong with a line that is not simply the next record, if anything is."""
        try:
            link = unseal(line, seals=self._seals)
        except BrokenRecordError as error:
            self._find("forged" if error.kind == "forged" else "changed", number, None, error)
            self._broken += 1
            return None
        if self._checked.key is not None and not link.sealed:
            self._find("forged", number, link.seq, "has no MAC, but its file has a key")
        if self._ended:
            self._find("inserted", number, link.seq, "stands after the end of the file")
        self._follow(number, link)
        return link

    def _follow(self, number: int, link: ChainLink) -> None:
        """Compare a record with the one before, or with where it would be if that is unreadable."""
        checked, last = self._checked, self._checked.last
        broken, self._broken = self._broken, 0
        if last is None:
            checked.first = link if not broken else None
        elif link.seq == last.seq + 1 + broken:
            if not broken and link.prev != last.hash:
                self._find("changed", number, link.seq, "does not follow from the record before it")
        elif link.seq > last.seq:
            missing = f"{last.seq + 1} to {link.seq - 1}"
            self._find("removed", number, link.seq, f"records {missing} are not before it")
        else:
            self._find(*self._out_of_place(number, link))
        self._seen.setdefault(link.seq, link.hash)
        if last is None or link.seq > last.seq:
            checked.last = link

    def _out_of_place(self, number: int, link: ChainLink) -> tuple[Kind, int, int, str]:
        there = self._seen.get(link.seq)
        if there is None:
            return "reordered", number, link.seq, "stands behind records that came after it"
        if there == link.hash:
            return "repeated", number, link.seq, "is there twice"
        return "inserted", number, link.seq, "has the number of another record"

    def _drop_what_only_moved(self) -> None:
        """A record that turned up later was not removed; that it moved has been said."""
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

    def _find(self, kind: Kind, line: int, seq: int | None, detail: object) -> None:
        if len(self._checked.findings) < MOST_FINDINGS:
            self._checked.findings.append(
                TrailFinding(kind, self._checked.name, line, seq, str(detail))
            )


def _time(line: bytes) -> str | None:
    return _text(_parsed(line), "time")
