"""Series by installation, bounded: the first `metrics.installations_max` have their own.

An installation gets a series when a token of it was used, not when somebody names it: whoever
sends invented IDs must not use up the places. All others share the label `other`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from icr_proxy.observability.outcome import Outcome

OTHER = "other"


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
        """Count outcomes, in plain numbers as `requestcounts` does."""
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
