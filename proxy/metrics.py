"""Prometheus metrics in a registry of their own; labels come from closed sets only.

Children are resolved once and kept: `labels()` costs more than the increment.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.metrics_core import Metric

    from proxy.outcome import Outcome

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATUSES = range(100, 600)  # RFC 9110, 15; llhttp lets three digits pass
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class States:
    """A gauge whose values are counted when somebody asks, such as tokens by their state."""

    def __init__(
        self, name: str, meaning: str, label: str, count: Callable[[], Mapping[str, float]]
    ) -> None:
        self._name, self._meaning, self._label, self._count = name, meaning, label, count

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Count now (called by the registry on each scrape)."""
        family = GaugeMetricFamily(self._name, self._meaning, labels=[self._label])
        for state, number in self._count().items():
            family.add_metric([state], number)
        yield family


class WithoutCreated:
    """What a registry collects, less the time at which each series was made.

    Those series are as many again and of use to OpenMetrics alone; the library's own switch is
    one for the whole process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """Collect now."""
        for family in self._registry.collect():
            created = f"{family.name}_created"
            family.samples = [sample for sample in family.samples if sample.name != created]
            yield family


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.first: Callable[[], None] = lambda: None
        """Called before they are shown: what happened before counts."""
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"icr_proxy_{name}", meaning, labels, registry=registry)

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"icr_proxy_{name}", meaning, labels, registry=registry)

        def histogram(name: str, meaning: str, *labels: str) -> Histogram:
            return Histogram(
                f"icr_proxy_{name}", meaning, labels, registry=registry, buckets=SECONDS
            )

        self.requests = counter(
            "requests", "Requests answered.", "operation", "method", "status", "origin"
        )
        self.duration = histogram(
            "request_duration_seconds", "From the head to the last byte.", "operation"
        )
        self.first_byte = histogram(
            "upstream_first_byte_seconds", "The API's time to the head of its answer.", "operation"
        )
        self.callers = gauge("caller_connections", "Connections of callers, idle ones too.")
        self.arrivals = counter("caller_connects", "Connections that callers made.", "result")
        self.in_flight = gauge("in_flight", "Requests being served.")
        self.bytes = counter("bytes", "Bytes of bodies passed on.", "direction")
        self.refusals = counter("refusals", "Requests refused or broken off, by code.", "code")
        self.would_refuse = counter(
            "would_refuse", "Requests that policy would refuse, were it enforced."
        )
        self.lookups = counter("token_lookups", "What the cache held for a request.", "result")
        self.mints = counter("token_mints", "Tokens asked for.", "kind", "result")
        self.mint_duration = histogram("token_mint_duration_seconds", "Time to mint a token.")
        self.token_refusals = counter("token_refusals", "Tokens the API refused.", "reason")
        self.shared_tokens = counter("shared_tokens", "Tokens wanted from all replicas.", "result")
        self.caller_requests = counter("caller_requests", "Requests of known callers.", "caller")
        self.caller_failures = counter("caller_failures", "Callers not let in, by why.", "reason")
        self.blocked = gauge("blocked_installations", "Installations an operator has blocked.")
        self.webhooks = counter("webhooks", "Deliveries of the registry.", "result")
        self.replays = counter("replays", "Requests sent again, and what came of it.", "result")
        self.duplicates = counter("duplicates", "What the duplicate guard did.", "result")
        self.connects = counter("upstream_connects", "Connections made to the API.", "result")
        self.closes = counter("upstream_closes", "Connections to the API closed.", "reason")
        self.waiting = gauge("upstream_waiting", "Requests that wait for a connection.")
        self.waits = counter("upstream_waits", "Requests that waited for a connection.", "result")
        self.circuit = counter("circuit_transitions", "Changes of the circuit breaker.", "to")
        self.signing_key = gauge(
            "signing_key_info", "The keys for App JWTs, and how they stand.", "fingerprint", "state"
        )
        self.front_refusals = counter(
            "proxy_protocol_refusals", "Connections without a PROXY header to trust.", "reason"
        )
        self.certificate_expiry = gauge(
            "listener_certificate_expiry_timestamp_seconds",
            "When the certificate of a listener expires.",
            "listener",
        )
        self.clock_skew = gauge("clock_skew_seconds", "The API's clock minus ours.")
        build = gauge("build_info", "The running version.", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)
        self._requests: dict[tuple[str, str, int, str], Counter] = {}
        self._timings: dict[str, tuple[Histogram, Histogram]] = {}
        self._bytes_in = self.bytes.labels("in")
        self._bytes_out = self.bytes.labels("out")

    def states(
        self, name: str, meaning: str, *, label: str, count: Callable[[], Mapping[str, float]]
    ) -> None:
        """Add a gauge that is counted on each scrape."""
        self.registry.register(States(f"icr_proxy_{name}", meaning, label, count))

    def fact(self, name: str, meaning: str, *, value: Callable[[], float]) -> None:
        """Add a gauge that is asked for on each scrape."""
        Gauge(f"icr_proxy_{name}", meaning, registry=self.registry).set_function(value)

    def __call__(self, outcome: Outcome) -> None:
        """Read one outcome."""
        method = outcome.method if outcome.method in METHODS else "other"
        status = outcome.status if outcome.status in STATUSES else 0
        key = (outcome.operation, method, status, outcome.origin)
        child = self._requests.get(key)
        if child is None:
            child = self._requests[key] = self.requests.labels(
                outcome.operation, method, str(status) if status else "other", outcome.origin
            )
        child.inc()
        timings = self._timings.get(outcome.operation)
        if timings is None:
            timings = self._timings[outcome.operation] = (
                self.duration.labels(outcome.operation),
                self.first_byte.labels(outcome.operation),
            )
        exemplar = {"trace_id": outcome.trace_id} if outcome.trace.sampled else None
        timings[0].observe(outcome.duration, exemplar)
        if outcome.first_byte is not None:
            timings[1].observe(outcome.first_byte, exemplar)
        if outcome.bytes_in:
            self._bytes_in.inc(outcome.bytes_in)
        if outcome.bytes_out:
            self._bytes_out.inc(outcome.bytes_out)
        if outcome.code is not None:
            self.refusals.labels(outcome.code).inc()
        if outcome.caller is not None:
            self.caller_requests.labels(outcome.caller).inc()
        if outcome.would_refuse is not None:
            self.would_refuse.inc()

    def render(self, accept: str = "") -> tuple[bytes, bytes]:
        """Give everything in the format that an `Accept` asks for, and its content type.

        Exemplars are in OpenMetrics alone.
        """
        self.first()
        encode, content_type = choose_encoder(accept)
        return encode(WithoutCreated(self.registry)), content_type.encode("ascii")
