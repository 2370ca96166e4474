"""The check of a whole trail: whether its segments are one chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.audit.chain import FIRST_KIND, GENESIS
from icr_proxy.audit.segments import SEGMENT_NAME
from icr_proxy.audit_tools.findings import TrailFinding, TrailVerdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from icr_proxy.audit_tools.findings import CheckedSegment, Kind, WitnessedRecord


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

    `keys` are the fingerprints of the keys at hand. `is_live` means that a process is writing the
    last segment, `is_partial` that the oldest segments are elsewhere. `accepted` are `rewound`
    records that the auditor knows of, `aside` findings about bytes that were set aside.
    """
    ordered = sorted(files, key=_order_of)
    if is_live and ordered and ordered[-1].first is None and not ordered[-1].findings:
        ordered.pop()  # it was created a moment ago
    findings = [
        *_check_beginning(ordered, is_partial=is_partial),
        *(finding for each in ordered for finding in _check_alone(each)),
        *_check_joints(ordered),
        *_check_ends(ordered, is_live=is_live),
        *_check_macs(ordered, keys=keys),
        *_check_trail_ids(ordered),
        *_check_rewinds(ordered, accepted),
        *aside,
        *_check_witnesses(ordered, witnesses),
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
        unbound=tuple(_find_unbound(ordered)),
        trail=next((each.trail for each in reversed(ordered) if each.trail), None),
        findings=tuple(findings),
        events=tuple(event for each in ordered for event in each.events),
        witnesses=tuple(witnesses),
    )


def _order_of(checked: CheckedSegment) -> tuple[int, str]:
    named = SEGMENT_NAME.fullmatch(checked.name)
    if checked.first is not None:
        return checked.first.seq, checked.name
    return int(named[1]) if named else 0, checked.name


def _check_alone(checked: CheckedSegment) -> Iterator[TrailFinding]:
    yield from checked.findings
    named = SEGMENT_NAME.fullmatch(checked.name)
    first = checked.first
    if first is None:
        if not checked.findings:
            yield TrailFinding("cut", checked.name, None, None, "has no record")
        return
    if first.kind != FIRST_KIND:
        yield TrailFinding("removed", checked.name, 1, first.seq, "the header before it is missing")
    elif named is not None and int(named[1]) != first.seq:
        yield TrailFinding("reordered", checked.name, 1, first.seq, "is not the file of this name")


def _check_beginning(
    files: Sequence[CheckedSegment], *, is_partial: bool
) -> Iterator[TrailFinding]:
    first = files[0] if files else None
    if first is None or first.first is None:  # `_check_alone` reports it
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


def _check_joints(files: Sequence[CheckedSegment]) -> Iterator[TrailFinding]:
    """Compare the first record of each segment with the last one of the segment before."""
    before: CheckedSegment | None = None
    for each in files:
        if each.first is None:
            before = None if each.findings else before  # if it is unreadable, that was reported
            continue
        if before is not None and before.last is not None:
            yield from _check_joint(before, each)
        if each.last is not None and (
            before is None or before.last is None or each.last.seq > before.last.seq
        ):
            before = each


def _check_joint(before: CheckedSegment, after: CheckedSegment) -> Iterator[TrailFinding]:
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


def _check_ends(files: Sequence[CheckedSegment], *, is_live: bool) -> Iterator[TrailFinding]:
    for each in files:
        if each.torn and not (is_live and each is files[-1]):
            detail = (
                f"ends within a record ({each.torn} bytes of it): cut, or a crash tore it; after a"
                " crash the next start sets it aside and records that"
            )
            yield TrailFinding("cut", each.name, each.records + 1, None, detail)


def _check_macs(
    files: Sequence[CheckedSegment], *, keys: Collection[str]
) -> Iterator[TrailFinding]:
    """Find segments without MACs at the end of a trail that has MACs.

    A segment with MACs vouches for all before it; nothing vouches for the last ones. With a wrong
    key nothing is known: `_find_unbound` reports that, and it is no finding.
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


def _find_unbound(files: Sequence[CheckedSegment]) -> Iterator[str]:
    for each in reversed(files):
        if each.is_checked:
            return
        if each.key:
            yield each.name


def _check_trail_ids(files: Sequence[CheckedSegment]) -> Iterator[TrailFinding]:
    """Compare the IDs of the trail; old segments have none."""
    named = [each for each in files if each.trail is not None]
    for each in named[1:]:
        if each.trail != named[0].trail:
            seq = each.first.seq if each.first is not None else None
            detail = f"belongs to trail {each.trail}, but {named[0].name} to {named[0].trail}"
            yield TrailFinding("inserted", each.name, 1, seq, detail)


def _check_rewinds(
    files: Sequence[CheckedSegment], accepted: Sequence[WitnessedRecord]
) -> Iterator[TrailFinding]:
    """Find where the trail went on though its anchor knew that its end was missing."""
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


def _check_witnesses(
    files: Sequence[CheckedSegment], witnesses: Sequence[WitnessedRecord]
) -> Iterator[TrailFinding]:
    last = max((each.last.seq for each in files if each.last is not None), default=0)
    first = min((each.first.seq for each in files if each.first is not None), default=1)
    hashes = {seq: text for each in files for seq, text in each.hashes.items()}
    name = files[-1].name if files else "-"
    for witness in witnesses:
        if witness.seq > last:
            detail = f"the trail ends with record {last}, but {witness.source} knows {witness.seq}"
            yield TrailFinding("cut", name, None, witness.seq, detail)
        elif witness.seq in hashes:
            if not hashes[witness.seq].startswith(witness.prefix):
                detail = (
                    f"is not the record that {witness.source} knows{_foreign_trail(witness, files)}"
                )
                yield TrailFinding("changed", name, None, witness.seq, detail)
        elif witness.seq >= first:
            detail = f"is missing, but {witness.source} knows it"
            yield TrailFinding("removed", name, None, witness.seq, detail)


def _foreign_trail(witness: WitnessedRecord, files: Sequence[CheckedSegment]) -> str:
    trails = {each.trail for each in files}
    return f", which is of trail {witness.trail}" if witness.trail not in {None, *trails} else ""
