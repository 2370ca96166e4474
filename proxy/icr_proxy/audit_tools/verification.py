"""Verification of a trail on disk, and its verdict in words."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from icr_proxy.audit.anchor import read_history
from icr_proxy.audit.chain import read_audit_key
from icr_proxy.audit.segments import is_in_use, list_segments
from icr_proxy.audit_tools.check_chain import check_chain
from icr_proxy.audit_tools.check_segment import check_segment
from icr_proxy.audit_tools.findings import WitnessedRecord
from icr_proxy.audit_tools.query import ENVELOPE
from icr_proxy.audit_tools.set_aside import compare_aside
from icr_proxy.errors import StartError
from icr_proxy.files import open_to_read
from icr_proxy.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from icr_proxy.audit_tools.findings import CheckedSegment, TrailVerdict

PARALLEL_LEAST = 32 << 20  # bytes; below it, starting processes takes longer than they save


class UncheckableError(Exception):
    """The trail is missing or cannot be read."""


def find_files(paths: Sequence[Path], *, may_be_none: bool = False) -> list[Path]:
    """List the given files, and the segments in the given directories.

    Raises:
        UncheckableError: there are none.
    """
    found: list[Path] = []
    for path in paths:
        try:
            found += list_segments(path) if path.is_dir() else [path]
        except OSError as exc:
            raise UncheckableError(f"{path} cannot be read: {exc.strerror}") from None
    if not (found or may_be_none):
        shown = ", ".join(map(str, paths))
        raise UncheckableError(f"there is no audit trail in {shown}")
    return found


def read_keys(paths: Sequence[Path]) -> dict[str, bytes]:
    """Read MAC keys, by fingerprint.

    Raises:
        UncheckableError: one cannot be read.
    """
    keys = {}
    for path in paths:
        try:
            secret = read_audit_key(path, key="--key-file")
        except StartError as error:
            raise UncheckableError(error.detail) from None
        keys[secret.fingerprint] = secret.reveal().encode()
    return keys


def read_anchor(path: Path) -> list[WitnessedRecord]:
    """Read the heads of an anchor file since the last one that was accepted as rewound.

    Raises:
        UncheckableError: it has none.
    """
    try:
        path.lstat()
        history = read_history(path)
    except OSError as exc:
        raise UncheckableError(f"{path} cannot be read: {exc.strerror}") from None
    except ValueError as exc:
        raise UncheckableError(f"{path} {exc}") from None
    if not history.heads:
        raise UncheckableError(f"{path} is not an anchor of an audit trail")
    return [
        WitnessedRecord(known.seq, known.hash, str(path), known.trail) for known in history.heads
    ]


def verify(
    paths: Sequence[Path],
    *,
    keys: Mapping[str, bytes],
    witnesses: Sequence[WitnessedRecord] = (),
    is_partial: bool = False,
    accepted: Sequence[WitnessedRecord] = (),
    on_progress: Callable[[int], None] = lambda _size: None,
) -> TrailVerdict:
    """Verify all files; `on_progress` gets the size of each file that is checked.

    Raises:
        UncheckableError: the trail is missing or cannot be read.
    """
    # Asked before and after: a process that starts or ends meanwhile leaves a torn record, too.
    directories = [path for path in paths if path.is_dir()]
    is_live = any(map(is_in_use, directories))
    # With an anchor or a head, a directory without segments is a trail that was removed.
    files = find_files(paths, may_be_none=bool(witnesses))
    wanted = frozenset(witness.seq for witness in witnesses)
    try:
        checked = _check_files(files, keys=keys, wanted=wanted, on_progress=on_progress)
    except OSError as exc:
        raise UncheckableError(f"{exc.filename} cannot be read: {exc.strerror}") from None
    return check_chain(
        checked,
        keys=keys.keys(),
        witnesses=witnesses,
        is_live=is_live or any(map(is_in_use, directories)),
        is_partial=is_partial,
        accepted=accepted,
        aside=compare_aside(checked, places={path.parent for path in files}),
    )


def _check_files(
    files: Sequence[Path],
    *,
    keys: Mapping[str, bytes],
    wanted: frozenset[int],
    on_progress: Callable[[int], None],
) -> list[CheckedSegment]:
    workers = min(len(files), os.cpu_count() or 1)
    if workers <= 1 or sum(path.stat().st_size for path in files) < PARALLEL_LEAST:
        checked = []
        for path in files:
            checked.append(_check_file(path, keys, wanted))
            on_progress(checked[-1].size)
        return checked
    with ProcessPoolExecutor(workers) as pool:
        tasks = [pool.submit(_check_file, path, keys, wanted) for path in files]
        for task in as_completed(tasks):
            on_progress(task.result().size)
        return [task.result() for task in tasks]


def _check_file(path: Path, keys: Mapping[str, bytes], wanted: frozenset[int]) -> CheckedSegment:
    try:
        with open_to_read(path) as file:
            return check_segment(path.name, file, keys=keys, wanted=wanted)
    except OSError as exc:  # an error while reading names no file
        raise OSError(exc.errno, exc.strerror, str(path)) from None


CLEAN, UNCHECKED, TAMPERED = 0, 1, 2
FINDINGS_SHOWN = 20


def exit_code(verdict: TrailVerdict, *, chain_only: bool) -> int:
    """Return 2 if there are findings, 1 if there are none but MACs were not checked, else 0."""
    if verdict.findings:
        return TAMPERED
    if verdict.unbound and not chain_only:
        return UNCHECKED
    return CLEAN


def result_of(verdict: TrailVerdict, *, chain_only: bool) -> str:
    """Return the verdict in a word: clean, repaired, accepted, not-checked or tampered."""
    code = exit_code(verdict, chain_only=chain_only)
    if code != CLEAN:
        return "tampered" if code == TAMPERED else "not-checked"
    kinds = {event.get("kind") for event in verdict.events}
    if "rewound" in kinds:
        return "accepted"
    return "repaired" if "repair" in kinds else "clean"


def report_verdict(verdict: TrailVerdict, *, chain_only: bool) -> Iterator[str]:
    """Return the lines for a person, each printable; the last is the verdict."""
    return (
        printable(line, instead="\ufffd") for line in _verdict_lines(verdict, chain_only=chain_only)
    )


def _verdict_lines(verdict: TrailVerdict, *, chain_only: bool) -> Iterator[str]:
    last = verdict.last
    newest = f"newest {last.seq}:{last.hash[:12]}" if last is not None else "no record"
    trail = f"trail {verdict.trail}, " if verdict.trail is not None else ""
    yield (
        f"{trail}{_counted(verdict.files, 'file')}, {_counted(verdict.records, 'record')},"
        f" {verdict.since or '?'} to {verdict.until or '?'}, {newest}"
    )
    yield _describe_macs(verdict)
    yield from _describe_witnesses(verdict)
    for event in verdict.events:
        yield f"Recorded in the trail: {_describe_event(event)}"
    for finding in verdict.findings[:FINDINGS_SHOWN]:
        yield str(finding)
    more = len(verdict.findings) - FINDINGS_SHOWN
    if more > 0:
        yield f"… and {more} more"
    yield {
        "clean": "CLEAN: nothing was changed, removed, moved or added.",
        "repaired": "REPAIRED: nothing was changed, removed, moved or added; what crashes left is"
        " set aside, and is as it was then.",
        "accepted": "ACCEPTED: nothing else was changed, removed, moved or added than what you"
        " accept.",
        "not-checked": "NOT CHECKED: the chain is whole, but whoever can write the files could have"
        " made it anew; give the key (--key-file), or say that this is enough (--chain-only).",
        "tampered": f"TAMPERED: {_counted(len(verdict.findings), 'finding')}.",
    }[result_of(verdict, chain_only=chain_only)]


def _describe_witnesses(verdict: TrailVerdict) -> Iterator[str]:
    """Describe what was compared; an anchor file remembers many records."""
    by_source: dict[str, list[int]] = {}
    for witness in verdict.witnesses:
        by_source.setdefault(witness.source, []).append(witness.seq)
    for source, known in by_source.items():
        more = f" and {_counted(len(known) - 1, 'other')}" if len(known) > 1 else ""
        yield f"Compared with record {max(known)}{more}, as {source} knows it."
    if not by_source:
        yield "No head was given: a cut at the very end would not be seen (--head, --anchor-file)."


def as_json(verdict: TrailVerdict, *, chain_only: bool) -> dict[str, Any]:
    """Return the verdict for a machine."""
    last = verdict.last
    return {
        "result": result_of(verdict, chain_only=chain_only),
        "trail": verdict.trail,
        "files": verdict.files,
        "records": verdict.records,
        "bytes": verdict.size,
        "since": verdict.since,
        "until": verdict.until,
        "head": {"seq": last.seq, "hash": last.hash} if last is not None else None,
        "keys": list(verdict.keys),
        "unchecked": list(verdict.unchecked),
        "witnesses": [
            {"seq": each.seq, "hash": each.prefix, "source": each.source}
            for each in verdict.witnesses
        ],
        "events": list(verdict.events),
        "findings": [asdict(each) for each in verdict.findings],
    }


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _describe_macs(verdict: TrailVerdict) -> str:
    if verdict.unbound:
        return (
            f"MACs of {_counted(len(verdict.unbound), 'file')} not checked: the key was not given;"
            " its fingerprint is in the first line of each."
        )
    if verdict.keys and verdict.unchecked:
        return (
            f"MACs checked with key {', '.join(verdict.keys)}; of"
            f" {_counted(len(verdict.unchecked), 'older file')} only that the later ones follow"
            " them."
        )
    if verdict.keys:
        return f"MACs checked with key {', '.join(verdict.keys)}."
    return (
        "There are no MACs: a chain of hashes alone, which whoever writes the files can make anew."
    )


def _describe_event(event: Mapping[str, Any]) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in event.items() if name not in ENVELOPE)
    return f"{event.get('kind')} (record {event.get('seq')}, {event.get('time')}): {facts}"
