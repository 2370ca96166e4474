"""What the checks of a trail find: of one segment, of the whole, and what was compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from icr_proxy.audit.chain import ChainLink

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
    """A record that a witness remembers: its number and the beginning of its hash."""

    seq: int
    prefix: str
    source: str
    trail: str | None = None
    """ID of its trail, if the witness knows it."""


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
    """Fingerprint of the MAC key in its header."""
    trail: str | None = None
    """ID of the trail in its header."""
    is_checked: bool = False
    """Whether the MACs were checked."""
    findings: list[TrailFinding] = field(default_factory=list)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    """Records that the verdict shows, such as repairs."""
    hashes: dict[int, str] = field(default_factory=dict)
    """Hashes of the records that witnesses remember, by number."""
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
    """Segments whose MACs were not checked."""
    unbound: tuple[str, ...]
    """Those of them after the last segment whose MACs were checked: nothing vouches for them."""
    trail: str | None
    """ID of the trail."""
    findings: tuple[TrailFinding, ...]
    events: tuple[Mapping[str, Any], ...]
    witnesses: tuple[WitnessedRecord, ...]
