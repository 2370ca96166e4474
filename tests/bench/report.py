"""What a run of the benchmarks found, as it is kept in report.json and told in report.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.measures import (
    ADDED_P50,
    ADDED_P99,
    ALL_OFF,
    DIRECT,
    P50,
    P99,
    Measure,
)

ADDED = {P50: ADDED_P50, P99: ADDED_P99}
YARDSTICKS = {"cost": (ALL_OFF,), "cpu": ("envoy", "aiohttp"), "stream": ("envoy", "go")}
"""By suite, what its contenders are compared with; otherwise Envoy."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers of some rounds, as they are told."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Report:
    """Facts about the machine and the run; and by measure and contender one number a round."""

    facts: Mapping[str, object]
    numbers: Mapping[Measure, Mapping[str, Sequence[float]]]

    def summary(self, measure: Measure, contender: str) -> Summary | None:
        """Give median, lowest and highest, if this was measured."""
        numbers = self.numbers.get(measure, {}).get(contender)
        return Summary(statistics.median(numbers), min(numbers), max(numbers)) if numbers else None

    def ratio(self, measure: Measure, contender: str, beside: str) -> float | None:
        """Compare the medians of two contenders, if both were measured and there is a ratio."""
        ours, theirs = self.summary(measure, contender), self.summary(measure, beside)
        if ours is None or theirs is None or theirs.median <= 0:
            return None
        return ours.median / theirs.median


def read(text: str) -> Report:
    """Read what `written` wrote."""
    document = json.loads(text)
    numbers: dict[Measure, dict[str, list[float]]] = {}
    for row in document["results"]:
        found = numbers.setdefault((row["suite"], row["what"]), {})
        found[row["contender"]] = row["numbers"]
    return Report(document["machine"], numbers)


def written(report: Report) -> str:
    """Write a report so that it can be read again."""
    results = [
        {"suite": suite, "what": what, "contender": name, "numbers": [round(n, 4) for n in numbers]}
        for (suite, what), found in report.numbers.items()
        for name, numbers in found.items()
    ]
    return json.dumps({"machine": report.facts, "results": results}, indent=1) + "\n"


def pooled(reports: Sequence[Report]) -> Report:
    """Make one report of several: their rounds stand together, and facts that differ are all told.

    `rounds` is of each report, so that it is told as it was.
    """
    facts: dict[str, object] = {}
    for name in dict.fromkeys(name for each in reports for name in each.facts):
        said = list(dict.fromkeys(str(each.facts[name]) for each in reports if name in each.facts))
        facts[name] = reports[-1].facts.get(name) if len(said) == 1 else " and ".join(said)
    numbers: dict[Measure, dict[str, list[float]]] = {}
    for each in reports:
        for measure, found in each.numbers.items():
            for name, more in found.items():
                numbers.setdefault(measure, {}).setdefault(name, []).extend(more)
    return Report(facts, numbers)


def with_added(report: Report) -> Report:
    """Work out the latency that each contender adds: its own less that without any proxy."""
    numbers: dict[Measure, Mapping[str, Sequence[float]]] = {}
    for measure, found in report.numbers.items():
        numbers[measure] = found
        direct = report.summary(measure, DIRECT)
        if measure in ADDED and direct is not None:
            numbers[ADDED[measure]] = {
                name: [number - direct.median for number in rounds]
                for name, rounds in found.items()
                if name != DIRECT
            }
    return Report(report.facts, numbers)


def markdown(report: Report) -> str:
    """Write all there is, as people read it."""
    facts = ", ".join(f"{name} {value}" for name, value in report.facts.items())
    return "\n".join([f"Measured: {facts}.", "", *_tables(with_added(report))])


def _tables(report: Report) -> Iterable[str]:
    for (suite, what), found in report.numbers.items():
        yardsticks = ("base",) if "base" in found else YARDSTICKS.get(suite, ("envoy",))
        beside = [name for name in yardsticks if name in found]
        yield from (f"### {suite}: {what}", "")
        yield (
            " | ".join(["| | median | lowest to highest", *(f"/ {name}" for name in beside)]) + " |"
        )
        yield "|---|--:|--:|" + "--:|" * len(beside)
        for name in found:
            one = report.summary((suite, what), name)
            if one is not None:
                ratios = [report.ratio((suite, what), name, each) for each in beside]
                cells = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
                spread = f"{one.low:.2f} to {one.high:.2f}"
                yield " | ".join([f"| {name}", f"{one.median:.2f}", spread, *cells]) + " |"
        yield ""
