"""The report of changes: each write with its result, counts, and an HTML page; pure.

A process that is killed leaves an intent without an outcome. An auditor asks the registry about
these requests first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from icr_proxy.audit_tools.query import installation_of
from icr_proxy.forwarding import response_classification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from icr_proxy.audit_tools.query import Entry

ChangeResult = Literal["done", "rejected", "not sent", "unknown"]
RESULTS: tuple[ChangeResult, ...] = ("done", "rejected", "not sent", "unknown")
MEANINGS = {
    "done": "The API answered that it did it.",
    "rejected": "The API answered that it did not.",
    "not sent": "The proxy refused it, or could not send it.",
    "unknown": "It was sent, and no answer tells what became of it: ask the registry.",
}
CHANGE_COLUMNS = (
    "time", "installation", "organization", "operation", "method", "path", "who", "fate", "status",
    "request_id", "sha256_in", "seq",
)  # fmt: skip

# Refusals of the proxy that prove that the API has not acted, however often it was tried.
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
# Fields that an intent and its outcome share; the token can change between them.
_KNOWN_BEFORE = (
    "request_id", "trace_id", "listener", "peer", "caller", "method", "path", "query", "operation",
    "rule", "installation",
)  # fmt: skip
_BY_STATUS: dict[response_classification.Effect, ChangeResult] = {
    response_classification.Effect.APPLIED: "done",
    response_classification.Effect.REJECTED: "rejected",
    response_classification.Effect.NOT_APPLIED: "rejected",
    response_classification.Effect.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True)
class Change:
    """A request that changes state, and its result."""

    record: Entry
    result: ChangeResult

    @property
    def day(self) -> str:
        """The day of the record, UTC."""
        return str(self.record.get("time", ""))[:10]

    @property
    def who(self) -> str:
        """Name or address of the caller."""
        return str(self.record.get("caller") or self.record.get("peer") or "")

    def row(self) -> dict[str, Any]:
        """Return the cells of `CHANGE_COLUMNS`."""
        derived = {
            "time": str(self.record.get("time", ""))[:23],
            "installation": installation_of(self.record),
            "who": self.who,
            "fate": self.result,
        }
        return {
            name: derived[name] if name in derived else self.record.get(name) or ""
            for name in CHANGE_COLUMNS
        }


def classify_result(record: Entry) -> ChangeResult:
    """Classify a request by the record of its outcome."""
    if not record.get("attempts"):
        return "not sent"
    if record.get("origin") == "upstream":
        return _BY_STATUS[response_classification.classify_effect(int(record.get("status", 0)), ())]
    return "not sent" if record.get("code") in _NOT_SENT else "unknown"


def find_changes(
    records: Iterable[Entry], *, wanted: Callable[[Entry], bool] = lambda _record: True
) -> list[Change]:
    """Pair intents with outcomes; return the wanted changes in the order of the trail.

    It needs all records of the trail: the outcome of a wanted intent may itself not be wanted.
    """
    pairs = _IntentPairs()
    found: list[Change] = []
    for record in records:
        if record.get("kind") == "request" and record.get("changes_state") is True:
            pairs.add_outcome(record)
            if wanted(record):
                found.append(Change(record, classify_result(record)))
        else:
            pairs.add(record)
    found += (Change(intent, "unknown") for intent in pairs.unanswered() if wanted(intent))
    return sorted(found, key=lambda change: change.record.get("seq", 0))


class _IntentPairs:
    """Pairs of intents and outcomes.

    The outcome names the number of its intent. Request IDs are no key: clients choose and may
    repeat them. Segments from before version 0.2 name neither trail nor intent; there, an intent
    and its outcome agree in all fields that were known before the request was sent.
    """

    def __init__(self) -> None:
        self._trail: Any = None
        self._intents: dict[tuple[Any, Any], Entry] = {}
        self._answered: set[tuple[Any, Any]] = set()
        self._old: dict[tuple[Any, ...], list[Entry]] = {}
        self._old_unanswered: list[Entry] = []

    def add(self, record: Entry) -> None:
        """Add a record that is no outcome."""
        kind = record.get("kind")
        if kind == "segment":
            self._trail = record.get("trail")
        elif kind == "start":
            self._old_unanswered += self._end_old()
        elif kind == "intent" and self._trail is not None:
            self._intents[self._trail, record.get("seq")] = record
        elif kind == "intent":
            self._old.setdefault(_known_before(record), []).append(record)

    def add_outcome(self, outcome: Entry) -> None:
        """Add an outcome."""
        if outcome.get("intent") is not None:
            self._answered.add((self._trail, outcome["intent"]))
        elif self._trail is None and (outcome.get("attempts") or outcome.get("token")):
            waiting = self._old.get(_known_before(outcome))
            if waiting:
                waiting.pop(0)

    def unanswered(self) -> Iterator[Entry]:
        """Return the intents without an outcome."""
        yield from (self._intents[key] for key in self._intents if key not in self._answered)
        yield from self._old_unanswered
        yield from self._end_old()

    def _end_old(self) -> list[Entry]:
        unanswered = [intent for waiting in self._old.values() for intent in waiting]
        self._old.clear()
        return unanswered


def _known_before(record: Entry) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in _KNOWN_BEFORE)


def count_changes(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Count changes by day, installation and operation."""
    counts: dict[tuple[str, str, str, str], Counter[str]] = {}
    for change in changes:
        record = change.record
        key = (
            change.day,
            installation_of(record),
            record.get("organization") or "",
            record.get("operation", ""),
        )
        counts.setdefault(key, Counter())[change.result] += 1
    return [
        {"day": day, "installation": installation, "organization": organization, "operation": what}
        | {result: counts[day, installation, organization, what][result] for result in RESULTS}
        for day, installation, organization, what in sorted(counts)
    ]


COLOURS = {"done": "#1a7f4b", "rejected": "#b58900", "not sent": "#7a8699", "unknown": "#c0392b"}
STYLE = """
:root{color-scheme:light dark;font:14px/1.45 system-ui,sans-serif}
body{margin:2rem auto;max-width:75rem;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}
th,td{border-bottom:1px solid #8884;padding:.3rem .5rem;text-align:left;overflow-wrap:anywhere}
th{font-weight:600}td.n{text-align:right}tr.unknown td{background:#c0392b22}
figure{margin:0 0 2rem}figcaption{margin-bottom:.3rem}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}
@media print{body{max-width:none}}
"""
BAR, GAP, HEIGHT, LEFT, BOTTOM = 26, 8, 140, 46, 34
MOST_BARS = 62  # two months; older days are left out


def render_page(
    changes: Sequence[Change], sums: Sequence[Mapping[str, Any]], *, title: str, made: str
) -> str:
    """Return the HTML page."""
    installations = sorted({str(row["installation"]) for row in sums})
    charts = [
        _chart(f"Installation {name or '(none)'}", [s for s in sums if s["installation"] == name])
        for name in installations
    ]
    counts = Counter(change.result for change in changes)
    facts = "".join(
        f"<li><b>{counts[result]}</b> {result}: {escape(MEANINGS[result])}</li>"
        for result in RESULTS
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>Made {escape(made)} from the audit trail of icr-proxy. It does"
        " not prove that the trail is whole; <code>icr-proxy audit verify</code> does.</p>"
        f"<ul>{facts}</ul>{_legend()}{''.join(charts)}"
        f"<h2>By day, installation and operation</h2>{_table(sums)}"
        f"<h2>Every change</h2>{_table([m.row() for m in changes])}</body></html>\n"
    )


def _legend() -> str:
    keys = (
        f'<span class="key" style="background:{COLOURS[result]}"></span>{result}'
        for result in RESULTS
    )
    return f"<p>{''.join(keys)}</p>"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, rows))}</tbody></table>"


def _row(row: Mapping[str, Any]) -> str:
    cells = "".join(
        f'<td class="n">{value}</td>'
        if isinstance(value, int)
        else f"<td>{escape(str(value))}</td>"
        for value in row.values()
    )
    return f'<tr class="{escape(str(row.get("fate", "")))}">{cells}</tr>'


def _chart(caption: str, sums: Iterable[Mapping[str, Any]]) -> str:
    days: dict[str, Counter[str]] = {}
    for row in sums:
        days.setdefault(str(row["day"]), Counter()).update(
            {result: row[result] for result in RESULTS}
        )
    shown = sorted(days)[-MOST_BARS:]
    most = max((days[day].total() for day in shown), default=1) or 1
    width = LEFT + len(shown) * (BAR + GAP) + GAP
    bars = "".join(
        _bar(days[day], day=day, x=LEFT + GAP + at * (BAR + GAP), most=most)
        for at, day in enumerate(shown)
    )
    return (
        f"<figure><figcaption>{escape(caption)}: changes by day</figcaption>"
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}"'
        f' height="{HEIGHT + BOTTOM}" font-size="10" fill="currentColor">'
        f'<text x="{LEFT - 4}" y="10" text-anchor="end">{most}</text>'
        f'<text x="{LEFT - 4}" y="{HEIGHT}" text-anchor="end">0</text>'
        f'<path d="M{LEFT} 0V{HEIGHT}H{width}" fill="none" stroke="currentColor"/>'
        f"{bars}</svg></figure>"
    )


def _bar(counts: Mapping[str, int], *, day: str, x: int, most: int) -> str:
    pieces, y = [], float(HEIGHT)
    for result in RESULTS:
        if counts[result]:
            tall = counts[result] / most * (HEIGHT - 6)
            y -= tall
            pieces.append(
                f'<rect x="{x}" y="{y:.1f}" width="{BAR}" height="{tall:.1f}"'
                f' fill="{COLOURS[result]}">'
                f"<title>{escape(day)}: {counts[result]} {result}</title></rect>"
            )
    label = (
        f'<text x="{x + BAR / 2}" y="{HEIGHT + 14}" text-anchor="middle">{escape(day[5:])}</text>'
    )
    return "".join(pieces) + label
