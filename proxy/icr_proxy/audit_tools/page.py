"""The report as one HTML page: tables and charts, no script and nothing from elsewhere; pure."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any

from icr_proxy.audit_tools.report import FATES, MEANINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from icr_proxy.audit_tools.report import Movement

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
MOST_BARS = 62  # two months; of a longer time the newest days


def render(
    movements: Sequence[Movement], sums: Sequence[Mapping[str, Any]], *, title: str, made: str
) -> str:
    """Write the page."""
    installations = sorted({str(row["installation"]) for row in sums})
    charts = [
        _chart(f"Installation {name or '(none)'}", [s for s in sums if s["installation"] == name])
        for name in installations
    ]
    counts = Counter(movement.fate for movement in movements)
    facts = "".join(
        f"<li><b>{counts[fate]}</b> {fate}: {escape(MEANINGS[fate])}</li>" for fate in FATES
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
        f"<h2>Every change</h2>{_table([m.row() for m in movements])}</body></html>\n"
    )


def _legend() -> str:
    keys = (f'<span class="key" style="background:{COLOURS[fate]}"></span>{fate}' for fate in FATES)
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
        days.setdefault(str(row["day"]), Counter()).update({fate: row[fate] for fate in FATES})
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
    for fate in FATES:
        if counts[fate]:
            tall = counts[fate] / most * (HEIGHT - 6)
            y -= tall
            pieces.append(
                f'<rect x="{x}" y="{y:.1f}" width="{BAR}" height="{tall:.1f}"'
                f' fill="{COLOURS[fate]}">'
                f"<title>{escape(day)}: {counts[fate]} {fate}</title></rect>"
            )
    label = (
        f'<text x="{x + BAR / 2}" y="{HEIGHT + 14}" text-anchor="middle">{escape(day[5:])}</text>'
    )
    return "".join(pieces) + label
