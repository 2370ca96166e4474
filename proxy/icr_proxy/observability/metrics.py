"""Prometheus metrics in a registry of their own; labels come from closed sets only.

What each request adds to is counted by `request_metrics`, and shown here.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CollectorRegistry,
    Counter,
    CounterMetricFamily,
    Gauge,
    GaugeMetricFamily,
    Histogram,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from icr_proxy import __version__
from icr_proxy.observability.request_metrics import SECONDS, InstallationCounts, RequestCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.metrics_core import Metric

    from icr_proxy.observability.outcome import Outcome


class LazyMetric:
    """A metric family that is made on each scrape."""

    def __init__(self, make: Callable[[], Metric]) -> None:
        self._make = make

    def collect(self) -> Iterable[Metric]:
        """Make it now (called by the registry on each scrape)."""
        yield self._make()


class StateGauge:
    """A gauge that counts states on each scrape, such as tokens by their state."""

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
        self.before_scrape: Callable[[], None] = lambda: None
        """Called before they are shown: what happened before counts."""
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"icr_proxy_{name}", meaning, labels, registry=registry)

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"icr_proxy_{name}", meaning, labels, registry=registry)

        self._counts = counts = RequestCounts()
        self.read_all = counts.read_all
        for made in (counts.requests, counts.durations, counts.first_bytes):
            registry.register(LazyMetric(made))
        self.callers = gauge("caller_connections", "Connections of callers, idle ones too.")
        self.arrivals = counter("caller_connects", "Connections that callers made.", "result")
        self.in_flight = gauge("in_flight", "Requests being served.")
        for made in (counts.bytes, counts.refusals, counts.would_refuse):
            registry.register(LazyMetric(made))
        self.lookups = InstallationCounts(
            "icr_proxy_token_lookups", "What the cache held for a request.", "result"
        )
        registry.register(self.lookups)
        self.mints = counter("token_mints", "Tokens asked for.", "kind", "result")
        self.mint_duration = Histogram(
            "icr_proxy_token_mint_duration_seconds",
            "Time to mint a token.",
            registry=registry,
            buckets=SECONDS,
        )
        self.token_refusals = counter("token_refusals", "Tokens the API refused.", "reason")
        self.shared_tokens = counter("shared_tokens", "Tokens wanted from all replicas.", "result")
        registry.register(LazyMetric(counts.callers))
        self.caller_failures = counter("caller_failures", "Callers not let in, by why.", "reason")
        self.blocked = gauge("blocked_installations", "Installations an operator has blocked.")
        self.webhooks = counter("webhooks", "Deliveries of the registry.", "result")
        self.replays = counter("replays", "Requests sent again, and what came of it.", "result")
        self.duplicates = counter("duplicates", "What the duplicate guard did.", "result")
        self.connects = counter("upstream_connects", "Connections made to the API.", "result")
        self.closes = counter("upstream_closes", "Connections to the API closed.", "reason")
        self.ca_reloads = counter(
            "upstream_ca_reloads", "Changes of upstream.ca_file, and if they are in use.", "result"
        )
        self.waiting = gauge("upstream_waiting", "Requests that wait for a connection.")
        self.waits = InstallationCounts(
            "icr_proxy_upstream_waits", "Requests that waited for a connection.", "result"
        )
        registry.register(self.waits)
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

    def add_counter(self, name: str, meaning: str, *, count: Callable[[], int]) -> None:
        """Add a counter that somebody else keeps."""

        def make() -> CounterMetricFamily:
            return CounterMetricFamily(f"icr_proxy_{name}", meaning, value=count())

        self.registry.register(LazyMetric(make))

    def states(
        self, name: str, meaning: str, *, label: str, count: Callable[[], Mapping[str, float]]
    ) -> None:
        """Add a gauge that is counted on each scrape."""
        self.registry.register(StateGauge(f"icr_proxy_{name}", meaning, label, count))

    def fact(self, name: str, meaning: str, *, value: Callable[[], float]) -> None:
        """Add a gauge that is asked for on each scrape."""
        Gauge(f"icr_proxy_{name}", meaning, registry=self.registry).set_function(value)

    def __call__(self, outcome: Outcome) -> None:
        """Read one outcome."""
        self.read_all((outcome,))

    def render(self, accept: str = "") -> tuple[bytes, bytes]:
        """Give everything in the format that an `Accept` asks for, and its content type.

        Exemplars are in OpenMetrics alone.
        """
        # With it come servers and clients of HTTP: half a megabyte where nobody ever scrapes.
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

        self.before_scrape()
        encode, content_type = choose_encoder(accept)
        return encode(WithoutCreated(self.registry)), content_type.encode("ascii")
