"""What we want the proxy to cost at most, and whether a report says that it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    START,
    STREAM_DOWN,
    STREAM_UP,
    TIMES,
    TOKENS,
    US,
    VARIED_PLAIN,
    VARIED_TLS,
    WIDE,
    Measure,
)

if TYPE_CHECKING:
    from tests.bench.report import Report

MB_IN_MIB = 1.048576  # the goals are in MB and KB of a thousand, what is measured in MiB and KiB
KB_IN_KIB = 1.024
NO_NUMBER = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A number that is to be at most so high, in itself or beside another contender's."""

    what: str
    measure: Measure
    most: float
    acceptable: float | None = None
    """What is still good enough, where the goal is an ambition."""
    beside: str = ""
    unit: str = TIMES
    scale: float = 1.0

    def measured(self, report: Report) -> float | None:
        """Give the number that the goal is about."""
        if self.beside:
            return report.ratio(self.measure, US, self.beside)
        found = report.summary(self.measure, US)
        return None if found is None else found.median * self.scale

    def verdict(self, number: float | None) -> str:
        """Say whether it is reached; a number that is told with two digits is judged as told."""
        if number is None:
            return NO_NUMBER
        if round(number, 2) <= self.most:
            return "yes"
        if self.acceptable is not None and round(number, 2) <= self.acceptable:
            return f"acceptable (up to {self.acceptable:g})"
        return "**no**"


PLAIN, TLS = "CPU per request, plain upstream", "CPU per request, TLS upstream"
VARIED = "every head different"
GOALS = (
    Goal(what=PLAIN, measure=CPU_PLAIN, beside="envoy", most=1.0, acceptable=1.25),
    Goal(what=TLS, measure=CPU_TLS, beside="envoy", most=1.0, acceptable=1.25),
    Goal(what=f"{PLAIN}, {VARIED}", measure=VARIED_PLAIN, beside="envoy", most=1.0,
         acceptable=1.25),
    Goal(what=f"{TLS}, {VARIED}", measure=VARIED_TLS, beside="envoy", most=1.0, acceptable=1.25),
    Goal(what=PLAIN, measure=CPU_PLAIN, beside="aiohttp", most=0.45),
    Goal(what=TLS, measure=CPU_TLS, beside="aiohttp", most=0.45),
    Goal(what="latency added, median", measure=ADDED_P50, beside="envoy", most=1.3),
    Goal(what="latency added, 99th percentile", measure=ADDED_P99, beside="envoy", most=1.5),
    Goal(what="CPU per GiB down", measure=STREAM_DOWN, beside="go", most=1.5),
    Goal(what="CPU per GiB up", measure=STREAM_UP, beside="go", most=1.5),
    Goal(what="memory growth by a GiB down", measure=GROWN_DOWN, most=16, unit="MiB"),
    Goal(what="memory growth by a GiB up", measure=GROWN_UP, most=16, unit="MiB"),
    Goal(what="from exec to the first answer", measure=START, most=400, unit="ms"),
    Goal(what="memory when idle", measure=IDLE, most=55, unit="MB", scale=MB_IN_MIB),
    Goal(what="memory of 1,000 tokens", measure=TOKENS, most=2, unit="MB", scale=MB_IN_MIB),
    Goal(what="memory per idle connection, at 10,000", measure=CONNECTION, most=12, unit="KB",
         scale=KB_IN_KIB),
    Goal(what="CPU per request with 10,000 installations, beside 1", measure=MANY, most=1.1),
    Goal(what="CPU per request on 1,000 connections, beside 32", measure=WIDE, most=1.3),
)  # fmt: skip


def goal_table(report: Report) -> str:
    """Write goal, number and verdict of each, and how many are reached."""
    lines = ["| | goal | measured | reached? |", "|---|--:|--:|---|"]
    verdicts = []
    for goal in GOALS:
        number = goal.measured(report)
        verdicts.append(goal.verdict(number))
        beside = f" {NAMES[goal.beside]}" if goal.beside else ""
        said = NOTHING if number is None else f"{_told(number, goal)}{beside}"
        most = f"≤ {goal.most:g} {goal.unit}{beside}"
        lines.append(f"| {goal.what} | {most} | {said} | {verdicts[-1]} |")
    reached = verdicts.count("yes")
    known = len(GOALS) - verdicts.count(NO_NUMBER)
    near = sum(each.startswith("acceptable") for each in verdicts)
    more = f", {near} more {'is' if near == 1 else 'are'} acceptable" if near else ""
    lines += ["", f"{reached} of {known} goals that were measured are reached{more}."]
    return "\n".join(lines) + "\n"


def _told(number: float, goal: Goal) -> str:
    digits = 2 if goal.unit == TIMES else 1 if goal.most < 100 else 0
    return f"{number:.{digits}f} {goal.unit}"
