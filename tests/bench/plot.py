"""Draws a report as SVG: bars by contender, light and dark, text as text, nothing from elsewhere.

Colours are Okabe and Ito's, which people who see colours differently can tell apart; of each pair
the one that stands out enough from white, and from black.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tests.bench.measures import (
    CONNECTION,
    CPU_PLAIN,
    CPU_TLS,
    IDLE,
    NAMES,
    P50,
    P99,
    STREAM_DOWN,
    STREAM_UP,
    US,
    VARIED_PLAIN,
    VARIED_TLS,
    Measure,
    told,
)
from tests.bench.report import Report, Summary

WIDTH, MARGIN, GUTTER = 900, 24, 36
PANEL = (WIDTH - 2 * MARGIN - GUTTER) / 2
LABELS = 92  # of the contenders, left of their bars
VALUES = 46  # right of the longest bar
BAR, BETWEEN = 11, 3
HEAD, FOOT, HEADLINE = 50, 24, 92  # of a panel; above all panels
MOST_STEPS = 4  # of a scale

STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
.paper, .halo { fill: #fff; stroke: #fff } .ink { fill: #1f2328 } .soft { fill: #59636e }
.grid { stroke: #d8dee4 } .zero { stroke: #8c959f } .ours { fill: #f3f6f9 }
.first { fill: #0072b2 } .second { fill: #d55e00 } .spread { stroke: #1f2328 }
.big { font-size: 17px; font-weight: 600 } .title { font-size: 13.5px; font-weight: 600 }
.small { font-size: 11px } .us { font-weight: 700 } .end { text-anchor: end }
.middle { text-anchor: middle } .spread, .halo { fill: none; stroke-linecap: round }
.spread { stroke-width: 1.25 } .halo { stroke-width: 3 }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117 } .paper, .halo { stroke: #0d1117 } .ink { fill: #e6edf3 }
.soft { fill: #9198a1 } .grid { stroke: #2a313a } .zero { stroke: #656c76 } .ours { fill: #1a212b }
.first { fill: #56b4e9 } .second { fill: #e69f00 } .spread { stroke: #e6edf3 } }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One unit; up to two measures in it, each with its own colour."""

    title: str
    unit: str
    series: tuple[tuple[str, Measure], ...]

    def contenders(self, report: Report) -> list[str]:
        """Give those of whom there is a number, in the usual order."""
        found = {name for _, measure in self.series for name in report.numbers.get(measure, ())}
        return [name for name in NAMES if name in found]

    def height(self, contenders: Sequence[str]) -> float:
        """Say how much room the panel needs."""
        return HEAD + len(contenders) * self.row() + FOOT

    def row(self) -> float:
        """Give the height of a contender."""
        return len(self.series) * (BAR + BETWEEN) + 9


PANELS = (
    Panel("CPU per request", "µs", (("plain upstream", CPU_PLAIN), ("TLS upstream", CPU_TLS))),
    Panel("CPU per request, every head different", "µs",
          (("plain upstream", VARIED_PLAIN), ("TLS upstream", VARIED_TLS))),
    Panel("Latency at 500 requests a second", "ms", (("median", P50), ("99th percentile", P99))),
    Panel("CPU per GiB streamed", "s", (("down", STREAM_DOWN), ("up", STREAM_UP))),
    Panel("Memory when idle", "MiB", (("resident", IDLE),)),
    Panel("Memory per idle connection", "KiB", (("10,000 of them", CONNECTION),)),
)  # fmt: skip


def plot(report: Report) -> str:
    """Draw what there is of the panels, two beside each other."""
    shown = [panel for panel in PANELS if panel.contenders(report)]
    body: list[str] = []
    y = float(HEADLINE)
    for at in range(0, len(shown), 2):
        pair = shown[at : at + 2]
        for column, panel in enumerate(pair):
            x = MARGIN + column * (PANEL + GUTTER)
            body += [f'<g transform="translate({x:g} {y:g})">', *_panel(panel, report), "</g>"]
        y += max(panel.height(panel.contenders(report)) for panel in pair) + 22
    return "\n".join([*_opening(report, y + 4), *body, "</svg>", ""])


def _opening(report: Report, height: float) -> Iterator[str]:
    facts = report.facts
    bars = "Bars are medians of {} rounds of {} s, lines reach from the lowest to the highest."
    how = bars.format(facts.get("rounds", "?"), facts.get("seconds", "?"))
    who = f"icr-proxy {facts.get('icr-proxy', '')} ({facts.get('revision', '')})"
    where = f"Measured: {who}, {facts.get('date', '')}, {facts.get('cores', '?')} cores"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        f'width="{WIDTH}" height="{height:g}" role="img" aria-labelledby="t d">'
    )
    yield '<title id="t">What icr-proxy costs beside other proxies</title>'
    yield f'<desc id="d">{escape("; ".join(_in_words(report)))}</desc>'
    yield f"<style>{STYLE}</style>"
    yield f'<rect class="paper" width="{WIDTH}" height="{height:g}" rx="8"/>'
    yield _text(MARGIN, 30, "What it costs: less is better", "ink big")
    yield _text(MARGIN, 49, escape(f"{where}, {facts.get('processor', '')}."), "soft small")
    yield _text(MARGIN, 65, escape(how), "soft small")


def _in_words(report: Report) -> Iterator[str]:
    """Say what is drawn, to those who do not see it."""
    for panel in PANELS:
        for label, measure in panel.series:
            found = ((name, report.summary(measure, name)) for name in panel.contenders(report))
            known = [f"{NAMES[name]} {told(one.median)}" for name, one in found if one]
            if known:
                yield f"{panel.title}, {panel.unit}, {label}: {', '.join(known)}"


def _panel(panel: Panel, report: Report) -> Iterator[str]:
    contenders = panel.contenders(report)
    drawn = [
        (row, at, summary)
        for row, name in enumerate(contenders)
        for at, (_, measure) in enumerate(panel.series)
        if (summary := report.summary(measure, name))
    ]
    highest = max(summary.high for _, _, summary in drawn)
    scale = (PANEL - LABELS - VALUES) / highest
    bottom = HEAD + len(contenders) * panel.row()

    yield _text(0, 13, f'{panel.title} <tspan class="soft">({panel.unit})</tspan>', "ink title")
    yield from _legend(panel)
    if US in contenders:
        top = HEAD + contenders.index(US) * panel.row()
        yield (
            f'<rect class="ours" x="-8" y="{top:g}" width="{PANEL + 16:g}" '
            f'height="{panel.row():g}" rx="4"/>'
        )
    for tick in ticks(highest):
        x = LABELS + tick * scale
        kind = "grid" if tick else "zero"
        yield f'<path class="{kind}" d="M{x:.1f} {HEAD}V{bottom:g}"/>'
        yield _text(x, bottom + 15, f"{tick:g}", "soft small middle")
    for row, name in enumerate(contenders):
        y = HEAD + (row + 0.5) * panel.row() + 4
        yield _text(LABELS - 10, y, NAMES[name], "ink end us" if name == US else "ink end")
    for row, at, summary in drawn:
        y = HEAD + row * panel.row() + 4.5 + at * (BAR + BETWEEN) + BETWEEN / 2
        yield from _bar(summary, y, scale, ("first", "second")[at])


def _legend(panel: Panel) -> Iterator[str]:
    x = 0.0
    for (label, _), colour in zip(panel.series, ("first", "second"), strict=False):
        yield f'<rect class="{colour}" x="{x:g}" y="24" width="11" height="11" rx="2"/>'
        yield _text(x + 16, 34, label, "soft small")
        x += 16 + 6.2 * len(label) + 18


def _bar(summary: Summary, y: float, scale: float, colour: str) -> Iterator[str]:
    """Draw the median as a bar, the spread as a line with ends over it, the number behind it."""
    low, high = (LABELS + max(value, 0) * scale for value in (summary.low, summary.high))
    length = max(summary.median * scale, 1)
    middle = y + BAR / 2
    yield f'<rect class="{colour}" x="{LABELS}" y="{y:g}" width="{length:.1f}" height="{BAR}"/>'
    if high - low >= 1:
        ends = "".join(f"M{x:.1f} {middle - 3:g}v6" for x in (low, high))
        line = f"M{low:.1f} {middle:g}H{high:.1f}{ends}"
        yield f'<path class="halo" d="{line}"/><path class="spread" d="{line}"/>'
    yield _text(max(high, LABELS + length) + 6, middle + 4, told(summary.median), "ink small")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{text}</text>'


def ticks(highest: float) -> list[float]:
    """Give round numbers from 0 up to the highest, four steps of them at most."""
    least = highest / MOST_STEPS
    power = 10.0 ** math.floor(math.log10(least))
    step = next(nice * power for nice in (1, 2, 2.5, 5, 10) if nice * power >= least * (1 - 1e-9))
    return [float(f"{at * step:.12g}") for at in range(math.floor(highest / step + 1e-9) + 1)]
