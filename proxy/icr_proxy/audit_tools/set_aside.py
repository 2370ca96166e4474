"""Compares bytes that were set aside after crashes with the records of that."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from icr_proxy.audit.recovery import ASIDE_NAME
from icr_proxy.audit_tools.findings import TrailFinding
from icr_proxy.files import open_to_read

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from icr_proxy.audit_tools.findings import CheckedSegment, Kind

_PIECE_BYTES = 1 << 20


def compare_aside(
    files: Iterable[CheckedSegment], *, places: Collection[Path]
) -> list[TrailFinding]:
    """Compare the bytes of each `repair` record; they are in one of the directories."""
    recorded: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for each in files:
        for event in each.events:
            if event.get("kind") == "repair":
                recorded.setdefault(str(event.get("torn_file")), []).append((each.name, event))
    return [
        finding
        for name, repairs in sorted(recorded.items())
        for finding in _compare(name, repairs, places=places)
    ]


def _compare(
    name: str, repairs: list[tuple[str, Mapping[str, Any]]], *, places: Collection[Path]
) -> Iterator[TrailFinding]:
    path = next((place / name for place in places if (place / name).is_file()), None)
    if ASIDE_NAME.fullmatch(name) is None or path is None:
        for file, event in repairs:
            yield _finding("removed", file, event, f"{name}, which it set aside, is not there")
        return
    try:
        opened = open_to_read(path)
    except OSError as exc:
        for file, event in repairs:
            yield _finding("removed", file, event, f"{name} cannot be read: {exc.strerror}")
        return
    # Earlier versions appended to the same file what a second crash left of a segment.
    with opened as aside:
        for file, event in repairs:
            digest = hashlib.sha256()
            wanted = event.get("torn_bytes")
            left = wanted if isinstance(wanted, int) else 0
            while left > 0 and (piece := aside.read(min(left, _PIECE_BYTES))):
                digest.update(piece)
                left -= len(piece)
            if left or digest.hexdigest() != event.get("torn_sha256"):
                yield _finding("changed", file, event, f"{name} does not hold what it set aside")
                return
        if aside.read(1):
            yield _finding("changed", *repairs[-1], f"{name} holds more than what it set aside")


def _finding(kind: Kind, file: str, event: Mapping[str, Any], detail: str) -> TrailFinding:
    return TrailFinding(kind, file, None, event["seq"], detail)
