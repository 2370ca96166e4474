"""Tells what was measured: `python -m tests.bench.tell build/bench/report.json …`.

Writes the generated parts of docs/performance.md and of the README, and docs/performance.svg, and
keeps the numbers in measured.json beside this file. Without a report it tells again what is kept:
`make docs` does, and a test compares. So nobody copies a number by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.goals import goal_table
from tests.bench.measures import (
    ADDED_P50,
    ADDED_P99,
    CONNECTION,
    CPU_PLAIN,
    CPU_TLS,
    GROWN_DOWN,
    GROWN_UP,
    IDLE,
    MANY,
    NAMES,
    NOTHING,
    SLOWLORIS,
    START,
    STREAM_DOWN,
    STREAM_UP,
    TIMES,
    TOKENS,
    US,
    VARIED_PLAIN,
    VARIED_TLS,
    WIDE,
    told,
)
from tests.bench.plot import plot
from tests.bench.report import Report, pooled, read, with_added, written

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = HERE / "measured.json"
PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "performance.svg"
README = ROOT / "README.md"
ROWS = (
    ("CPU per request, plain upstream", CPU_PLAIN, "µs"),
    ("CPU per request, TLS upstream", CPU_TLS, "µs"),
    ("CPU per request, every head different, plain upstream", VARIED_PLAIN, "µs"),
    ("CPU per request, every head different, TLS upstream", VARIED_TLS, "µs"),
    ("latency added at 500/s, median", ADDED_P50, "ms"),
    ("latency added at 500/s, 99th percentile", ADDED_P99, "ms"),
    ("CPU per GiB down", STREAM_DOWN, "s"),
    ("CPU per GiB up", STREAM_UP, "s"),
    ("memory growth by a GiB down", GROWN_DOWN, "MiB"),
    ("memory growth by a GiB up", GROWN_UP, "MiB"),
    ("from exec to the first answer", START, "ms"),
    ("memory when idle", IDLE, "MiB"),
    ("memory of 1,000 cached tokens", TOKENS, "MiB"),
    ("memory per idle connection, at 10,000", CONNECTION, "KiB"),
    ("CPU per request with 10,000 installations, beside 1", MANY, TIMES),
    ("CPU per request on 1,000 connections, beside 32", WIDE, TIMES),
    ("median latency of others under a slow-loris, beside without", SLOWLORIS, TIMES),
)
# What is a ratio already, or is next to nothing for most, says nothing when it is divided again.
COSTS = {
    what: measure
    for what, measure, unit in ROWS
    if unit != TIMES and measure not in (GROWN_DOWN, GROWN_UP)
}
AS_GOOD = 1.05  # times the other: two medians that are closer are not told apart


def main() -> None:
    """Tell it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="*", type=Path, help="report.json; default: what is kept")
    options = parser.parse_args()
    report = pooled([read(file.read_text()) for file in options.reports or [KEPT]])
    KEPT.write_text(written(report))
    PLOT.write_text(plot(report))
    PAGE.write_text(filled(PAGE.read_text(), f"\n{section(report)}"))
    README.write_text(filled(README.read_text(), sentence(report)))


def filled(text: str, content: str) -> str:
    """Give the document with what stands between its markers made anew."""
    begin, end = "<!-- bench:begin -->", "<!-- bench:end -->"
    before, marker, rest = text.partition(begin)
    if not marker or end not in rest:
        raise ValueError(f"{begin} and {end} are missing")
    return f"{before}{begin}{content}{end}{rest.partition(end)[2]}"


def section(report: Report) -> str:
    """Write what docs/performance.md says of the numbers."""
    report = with_added(report)
    lines = [
        _measured_how(report),
        "",
        "![Bars of the numbers below](performance.svg)",
        "",
        "### Goals",
        "",
        goal_table(report),
        "### Where it is slower, or larger",
        "",
        *_slower(report),
        "",
        "### All numbers",
        "",
        "Medians; of icr-proxy also lowest and highest.",
        "",
        *_comparison(report),
    ]
    return "\n".join(lines) + "\n"


def _measured_how(report: Report) -> str:
    facts = report.facts
    return (
        f"Measured on {facts['date']}: icr-proxy {facts['icr-proxy']} ({facts['revision']}), "
        f"Python {facts['python']}, Envoy {facts['envoy']}, {facts['cores']} cores of "
        f"{facts['processor']}; {facts['rounds']} rounds of {facts['seconds']} s each."
    )


def _slower(report: Report) -> Iterator[str]:
    """Say plainly what others do with less, and with how much less."""
    worse = {
        what: ", ".join(
            f"{ratio:.2f} {TIMES} {NAMES[name]}"
            for name in NAMES
            if (ratio := report.ratio(measure, US, name)) is not None and ratio > AS_GOOD
        )
        for what, measure in COSTS.items()
    }
    if not any(worse.values()):
        yield "Nowhere."
    yield from (f"* {what}: {beside}" for what, beside in worse.items() if beside)


def _comparison(report: Report) -> Iterator[str]:
    shown = [row for row in ROWS if report.numbers.get(row[1])]
    present = {name for _, measure, _ in shown for name in report.numbers[measure]}
    others = [name for name in NAMES if name in present and name != US]
    yield " | ".join(["|", f"**{US}**", *(NAMES[name] for name in others), "/ Envoy |"])
    yield "|---" + "|--:" * (len(others) + 2) + "|"
    for what, measure, unit in shown:
        ours = report.summary(measure, US)
        if ours is None:
            continue
        ours_told = f"**{told(ours.median)} {unit}** ({told(ours.low)} to {told(ours.high)})"
        beside = [report.summary(measure, name) for name in others]
        cells = [f"{told(each.median)}" if each else NOTHING for each in beside]
        ratio = report.ratio(measure, US, "envoy") if what in COSTS else None
        yield " | ".join(
            [f"| {what}", ours_told, *cells, f"{ratio:.2f} |" if ratio else f"{NOTHING} |"]
        )


def sentence(report: Report) -> str:
    """Write what the README says of it in a line."""
    cpu = [report.ratio(measure, US, "envoy") for measure in (CPU_PLAIN, CPU_TLS)]
    memory = report.ratio(CONNECTION, US, "envoy")
    if None in (*cpu, memory):
        return "more than is known here"
    least, most = sorted(f"{ratio:.1f}" for ratio in cpu)
    times = least if least == most else f"{least} to {most}"
    return (
        f"a request {times} times the CPU that it costs Envoy, "
        f"an idle connection {memory:.1f} times the memory"
    )


if __name__ == "__main__":
    main()
