"""Series by installation, bounded: the first `metrics.installations_max` have their own.

An installation gets a series when a token of it was used, not when somebody names it: whoever
sends invented IDs must not use up the places. All others share the label `other`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry

    from proxy.outcome import Outcome

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
        self._requests = Counter(
            "icr_proxy_installation_requests",
            "Requests with an installation's token; beyond metrics.installations_max, `other`.",
            ["installation"],
            registry=registry,
        )
        self._children: dict[str, Counter] = {}
        registry.register(self)

    def __call__(self, outcome: Outcome) -> None:
        """Read one outcome."""
        if outcome.installation is None or outcome.token is None:
            return
        child = self._children.get(outcome.installation)
        if child is None:
            child = self._child(outcome.installation)
        child.inc()

    def _child(self, installation: str) -> Counter:
        if len(self._children) < self._most:
            child = self._children[installation] = self._requests.labels(installation)
            return child
        return self._requests.labels(OTHER)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Look at the tokens now (called by the registry on each scrape).

        Of those that share `other`, the soonest expiry is shown: it is the one to worry about.
        """
        soonest: dict[str, float] = {}
        for installation, expires_at in self._expiries():
            name = installation if installation in self._children else OTHER
            soonest[name] = min(expires_at, soonest.get(name, expires_at))
        family = GaugeMetricFamily(
            "icr_proxy_installation_token_expiry_timestamp_seconds",
            "When the installation's token expires, if it has one; the soonest of `other`.",
            labels=["installation"],
        )
        for name, expires_at in soonest.items():
            family.add_metric([name], expires_at)
        yield family
