"""Requests counted in plain numbers, in all and by installation; a scrape makes series of them.

There are thousands of requests to a scrape, so counting is what has to be cheap: the library's own
counters take a lock and make a number anew for each of the seven things that a request adds to.
Labels come from closed sets: the operation and the origin are our words, the rest is checked here.

An installation gets a series when a token of it was used, not when somebody names it: whoever
sends invented IDs must not use up the places. All others share the label `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from icr_proxy.observability.outcome import Outcome

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATUSES = range(100, 600)  # RFC 9110, 15; llhttp lets three digits pass
OTHER = "other"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BOUNDS = (*map(floatToGoString, SECONDS), "+Inf")

Key = tuple[str, str, int, str]
"""Operation, method, status and origin."""


class Times:
    """How long something took: how often as long as each of `SECONDS`, and all together."""

    __slots__ = ("exemplars", "numbers", "total")

    def __init__(self) -> None:
        self.numbers = [0] * len(BOUNDS)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}
        """The last sampled trace that took as long."""

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.numbers[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def show(self, seconds: float, outcome: Outcome) -> None:
        """Let the trace of an outcome stand for those that took as long."""
        self.exemplars[bisect_left(SECONDS, seconds)] = Exemplar(
            {"trace_id": outcome.trace_id}, seconds, outcome.started_at + outcome.duration
        )

    def buckets(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Give what a scrape is told: each bucket holds what is in those below it, too."""
        shown = self.exemplars
        upto = zip(BOUNDS, map(float, accumulate(self.numbers)), strict=True)
        return [
            (*bucket, shown[place]) if place in shown else bucket
            for place, bucket in enumerate(upto)
        ]


class OperationSeries:
    """The times of one operation."""

    __slots__ = ("duration", "first_byte")

    def __init__(self) -> None:
        self.duration = Times()
        self.first_byte = Times()


class Series:
    """The requests that are alike in all labels."""

    __slots__ = ("number", "operation")

    def __init__(self, operation: OperationSeries) -> None:
        self.number = 0
        self.operation = operation


class RequestCounts:
    """All that is counted of requests."""

    def __init__(self) -> None:
        self._series: dict[Key, Series] = {}
        self._operations: dict[str, OperationSeries] = {}
        self._bytes_in = self._bytes_out = self._would_refuse = 0
        self._refusals: Counter[str] = Counter()
        self._callers: Counter[str] = Counter()

    def read_all(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes."""
        series = self._series
        for outcome in outcomes:
            found = series.get((outcome.operation, outcome.method, outcome.status, outcome.origin))
            if found is None:
                found = self._series_of(outcome)
            found.number += 1
            times = found.operation
            seconds = outcome.duration
            times.duration.add(seconds)
            first_byte = outcome.first_byte
            if first_byte is not None:
                times.first_byte.add(first_byte)
            if outcome.trace.sampled:
                times.duration.show(seconds, outcome)
                if first_byte is not None:
                    times.first_byte.show(first_byte, outcome)
            self._bytes_in += outcome.bytes_in
            self._bytes_out += outcome.bytes_out
            if outcome.code is not None:
                self._refusals[outcome.code] += 1
            if outcome.caller is not None:
                self._callers[outcome.caller] += 1
            if outcome.would_refuse is not None:
                self._would_refuse += 1

    def _series_of(self, outcome: Outcome) -> Series:
        """Find the series of an outcome that is new, or whose labels are not among the known."""
        method = outcome.method if outcome.method in METHODS else OTHER
        status = outcome.status if outcome.status in STATUSES else 0
        key = (outcome.operation, method, status, outcome.origin)
        if key not in self._series:
            operation = self._operations.setdefault(outcome.operation, OperationSeries())
            self._series[key] = Series(operation)
        return self._series[key]

    # -- what a scrape asks for -------------------------------------------------------------------

    def requests(self) -> CounterMetricFamily:
        """Show how many there were."""
        family = CounterMetricFamily(
            "icr_proxy_requests",
            "Requests answered.",
            labels=("operation", "method", "status", "origin"),
        )
        for (operation, method, status, origin), series in self._series.items():
            labels = (operation, method, str(status) if status else OTHER, origin)
            family.add_metric(labels, float(series.number))
        return family

    def durations(self) -> HistogramMetricFamily:
        """Show how long they took."""
        return _histogram(
            "icr_proxy_request_duration_seconds",
            "From the head to the last byte.",
            {name: operation.duration for name, operation in self._operations.items()},
        )

    def first_bytes(self) -> HistogramMetricFamily:
        """Show how long the API took to begin its answer."""
        return _histogram(
            "icr_proxy_upstream_first_byte_seconds",
            "The API's time to the head of its answer.",
            {name: operation.first_byte for name, operation in self._operations.items()},
        )

    def bytes(self) -> CounterMetricFamily:
        """Show how long their bodies were, and those of the answers."""
        numbers = {"in": self._bytes_in, "out": self._bytes_out}
        return _counter("icr_proxy_bytes", "Bytes of bodies passed on.", "direction", numbers)

    def refusals(self) -> CounterMetricFamily:
        """Show how many were refused."""
        meaning = "Requests refused or broken off, by code."
        return _counter("icr_proxy_refusals", meaning, "code", self._refusals)

    def would_refuse(self) -> CounterMetricFamily:
        """Show how many would have been."""
        return CounterMetricFamily(
            "icr_proxy_would_refuse",
            "Requests that policy would refuse, were it enforced.",
            value=float(self._would_refuse),
        )

    def callers(self) -> CounterMetricFamily:
        """Show how many came from each caller that is known."""
        meaning = "Requests of known callers."
        return _counter("icr_proxy_caller_requests", meaning, "caller", self._callers)


class InstallationCounts:
    """A counter by one label, in plain numbers, for whoever counts once for each request."""

    def __init__(self, name: str, meaning: str, label: str) -> None:
        self._name, self._meaning, self._label = name, meaning, label
        self.numbers: Counter[str] = Counter()

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Show them now (called by the registry on each scrape)."""
        yield _counter(self._name, self._meaning, self._label, self.numbers)


def _counter(
    name: str, meaning: str, label: str, numbers: Mapping[str, int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, meaning, labels=(label,))
    for value, number in numbers.items():
        family.add_metric((value,), float(number))
    return family


def _histogram(name: str, meaning: str, times: Mapping[str, Times]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, meaning, labels=("operation",))
    for operation, each in times.items():
        family.add_metric((operation,), each.buckets(), each.total)
    return family


class InstallationMetrics:
    """Counts requests by installation, and shows when their tokens expire."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        most: int,
        expiries: Callable[[], Iterable[tuple[str, float]]],
    ) -> None:
        """Name `most` installations; `expiries` gives those with a token and when it expires."""
        self._most = most
        self._expiries = expiries
        self._requests: dict[str, int] = {}
        self._others = 0
        registry.register(self)

    def __call__(self, outcome: Outcome) -> None:
        """Read one outcome."""
        self.read_all((outcome,))

    def read_all(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes in plain numbers."""
        requests = self._requests
        for outcome in outcomes:
            installation = outcome.installation
            if installation is None or outcome.token is None:
                continue
            if installation in requests:
                requests[installation] += 1
            elif len(requests) < self._most:
                requests[installation] = 1
            else:
                self._others += 1

    def collect(self) -> Iterable[Metric]:
        """Look at the tokens now (called by the registry on each scrape)."""
        family = CounterMetricFamily(
            "icr_proxy_installation_requests",
            "Requests with an installation's token; beyond metrics.installations_max, `other`.",
            labels=["installation"],
        )
        numbers = dict(self._requests)
        if self._others:  # an installation may be called so, too
            numbers[OTHER] = numbers.get(OTHER, 0) + self._others
        for name, number in numbers.items():
            family.add_metric([name], float(number))
        yield family
        yield self._soonest()

    def _soonest(self) -> GaugeMetricFamily:
        """Show when tokens expire; of those that share `other`, the one to worry about."""
        soonest: dict[str, float] = {}
        for installation, expires_at in self._expiries():
            name = installation if installation in self._requests else OTHER
            soonest[name] = min(expires_at, soonest.get(name, expires_at))
        family = GaugeMetricFamily(
            "icr_proxy_installation_token_expiry_timestamp_seconds",
            "When the installation's token expires, if it has one; the soonest of `other`.",
            labels=["installation"],
        )
        for name, expires_at in soonest.items():
            family.add_metric([name], expires_at)
        return family
