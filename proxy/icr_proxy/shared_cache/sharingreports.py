"""What sharing tokens through Redis has to tell, for metrics and log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.shared_cache.single_flight import RESULTS

if TYPE_CHECKING:
    from icr_proxy.observability.log import Log
    from icr_proxy.observability.metrics import Metrics


class SharingReports:
    """A `presence.PresenceWatcher`, which also counts what became of each token."""

    def __init__(self, *, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._results = {result: metrics.shared_tokens.labels(result) for result in RESULTS}
        self._has_told = False

    def lost(self, reason: str, error: str) -> None:
        """Tell that replicas are on their own."""
        self._log.warning("shared.lost", reason=reason, error=error)

    def back(self, seconds: float) -> None:
        """Tell that they are no longer."""
        self._log.info("shared.back", lost_s=round(seconds, 3))

    def counted(self, result: str) -> None:
        """Count; tell the first entry that is not ours to read, for keys may differ."""
        self._results[result].inc()
        if result == "unreadable" and not self._has_told:
            self._has_told = True
            self._log.warning("shared.unreadable")
