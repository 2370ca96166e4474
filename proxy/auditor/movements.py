"""What changed anything: each request with what became of it, and sums of them; pure.

Not every request that was sent has ended in the trail: a process that is killed leaves its intent
and no outcome. Such a one is the first thing an auditor asks the registry about.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from proxy import fates
from proxy.auditor.reading import installation_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.auditor.reading import Entry

Fate = Literal["done", "rejected", "not sent", "unknown"]
FATES: tuple[Fate, ...] = ("done", "rejected", "not sent", "unknown")
MEANINGS = {
    "done": "The API answered that it did it.",
    "rejected": "The API answered that it did not.",
    "not sent": "The proxy refused it, or could not send it.",
    "unknown": "It was sent, and no answer tells what became of it: ask the registry.",
}
COLUMNS = (
    "time", "installation", "organization", "operation", "method", "path", "who", "fate", "status",
    "request_id", "sha256_in", "seq",
)  # fmt: skip

# Refusals of our own that are given only if the API has not acted, however often it was tried.
_NOT_SENT = frozenset(
    {
        "app-key-refused",
        "audit-unavailable",
        "circuit-open",
        "installation-blocked",
        "installation-refused",
        "mint-failed",
        "mint-timeout",
        "overloaded",
        "upstream-tls",
        "upstream-unreachable",
    }
)
_BY_STATUS: dict[fates.Fate, Fate] = {
    fates.Fate.DONE: "done",
    fates.Fate.REFUSED: "rejected",
    fates.Fate.NOT_NOW: "rejected",
    fates.Fate.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True)
class Movement:
    """A request that changes state, and what became of it."""

    record: Entry
    fate: Fate

    @property
    def day(self) -> str:
        """The day on which it was recorded, UTC."""
        return str(self.record.get("time", ""))[:10]

    @property
    def who(self) -> str:
        """The caller's name, or its address."""
        return str(self.record.get("caller") or self.record.get("peer") or "")

    def row(self) -> dict[str, Any]:
        """Give it as one line of a table."""
        get = self.record.get
        return {
            "time": str(get("time", ""))[:23],
            "installation": installation_of(self.record),
            "organization": get("organization") or "",
            "operation": get("operation", ""),
            "method": get("method", ""),
            "path": get("path", ""),
            "who": self.who,
            "fate": self.fate,
            "status": get("status", ""),
            "request_id": get("request_id", ""),
            "sha256_in": get("sha256_in") or "",
            "seq": get("seq", ""),
        }


def fate_of(record: Entry) -> Fate:
    """Say what became of a request that has ended."""
    if not record.get("attempts"):
        return "not sent"
    if record.get("origin") == "upstream":
        return _BY_STATUS[fates.fate_of(int(record.get("status", 0)), ())]
    return "not sent" if record.get("code") in _NOT_SENT else "unknown"


def find_movements(records: Iterable[Entry]) -> list[Movement]:
    """Pair intents with outcomes; give every change, in the order in which it was recorded."""
    open_intents: dict[tuple[Any, Any], list[Entry]] = {}
    found: list[Movement] = []
    for record in records:
        if record.get("changes_state") is not True:
            continue
        name = record.get("request_id"), record.get("trace_id")
        if record.get("kind") == "intent":
            open_intents.setdefault(name, []).append(record)
        elif record.get("kind") == "request":
            waiting = open_intents.get(name)
            if waiting:
                waiting.pop(0)
            found.append(Movement(record, fate_of(record)))
    left = (intent for intents in open_intents.values() for intent in intents)
    found += (Movement(intent, "unknown") for intent in left)
    return sorted(found, key=lambda movement: movement.record.get("seq", 0))


def sum_up(movements: Iterable[Movement]) -> list[dict[str, Any]]:
    """Count them by day, installation and operation."""
    counts: dict[tuple[str, str, str, str], Counter[str]] = {}
    for movement in movements:
        record = movement.record
        key = (
            movement.day,
            installation_of(record),
            record.get("organization") or "",
            record.get("operation", ""),
        )
        counts.setdefault(key, Counter())[movement.fate] += 1
    return [
        {"day": day, "installation": installation, "organization": organization, "operation": what}
        | {fate: counts[day, installation, organization, what][fate] for fate in FATES}
        for day, installation, organization, what in sorted(counts)
    ]
