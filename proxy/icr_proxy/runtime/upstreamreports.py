"""What the connections to the API and the circuit have to tell, for metrics and log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.upstream.circuit_breaker import STATES
from icr_proxy.upstream.interface import CLOSES

if TYPE_CHECKING:
    from icr_proxy.errors import StartError
    from icr_proxy.observability.log import Log
    from icr_proxy.observability.metrics import Metrics
    from icr_proxy.upstream.circuit_breaker import Circuit

CONNECTS = ("ok", "timeout", "tls", "unreachable", "exhausted", "left")
RELOADS = ("ok", "rejected")
WAITS = ("ok", "busy", "left")


class TrustReports:
    """A `truststore.TrustWatcher`."""

    def __init__(self, *, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._reloads = {result: metrics.ca_reloads.labels(result) for result in RELOADS}

    def renewed(self) -> None:
        """Tell that other authorities are trusted from now on."""
        self._reloads["ok"].inc()
        self._log.info("upstream.ca_renewed")

    def rejected(self, error: StartError) -> None:
        """Tell, loudly, that the file is not what is in use."""
        self._reloads["rejected"].inc()
        self._log.error("upstream.ca_rejected", detail=error.detail)


class PoolReports:
    """A `pool.PoolWatcher`."""

    def __init__(self, *, metrics: Metrics) -> None:
        self._connects = {result: metrics.connects.labels(result) for result in CONNECTS}
        self._closes = {reason: metrics.closes.labels(reason) for reason in CLOSES}
        self._waits = metrics.waits.numbers
        self._waits.update(dict.fromkeys(WAITS, 0))

    def connected(self, result: str) -> None:
        """Count a connection that was made, or not."""
        self._connects[result].inc()

    def closed(self, reason: str) -> None:
        """Count a connection that is closed."""
        self._closes[reason].inc()

    def waited(self, result: str) -> None:
        """Count a request for which none was free at once."""
        self._waits[result] += 1


class CircuitReports:
    """Tells every change of the circuit."""

    def __init__(self, *, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._transitions = {state: metrics.circuit.labels(state) for state in STATES}

    def moved(self, circuit: Circuit) -> None:
        """Count and log the state it has come to."""
        self._transitions[circuit.state].inc()
        if circuit.state == "open":
            self._log.warning(
                "circuit.opened", failures=circuit.failures, pause_s=round(circuit.pause, 3)
            )
        elif circuit.state == "half_open":
            self._log.info("circuit.half_open")
        else:
            self._log.info("circuit.closed")
