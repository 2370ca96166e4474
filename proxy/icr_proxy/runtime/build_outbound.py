"""Builds the way to the API: connection pool and circuit breaker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from icr_proxy import __version__
from icr_proxy.forwarding.listener_rules import upstream_host
from icr_proxy.http1.headers import VERSION
from icr_proxy.runtime.watchers import CircuitReports, PoolReports, TrustReports
from icr_proxy.upstream.circuit_breaker import STATES, CircuitBreaker, GuardedUpstream
from icr_proxy.upstream.dialer import OwnAddresses, parse_address
from icr_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.clock import Clocks
    from icr_proxy.config.models import Config
    from icr_proxy.observability.log import Log
    from icr_proxy.observability.metrics import Metrics
    from icr_proxy.runtime.build_observers import Observers
    from icr_proxy.upstream.interface import Upstream
    from icr_proxy.upstream.trust_store import TrustWatcher

# Of the app's own requests; the vendor's own clients send a user agent, too (V).
USER_AGENT = f"icr-proxy/{__version__}".encode()


class Outbound(msgspec.Struct, frozen=True, kw_only=True):
    """Connections to the API."""

    pool: Pool
    circuit: CircuitBreaker | None
    upstream: Upstream
    """The pool, behind the circuit breaker if there is one."""
    own_addresses: OwnAddresses


def build_outbound(config: Config, *, observers: Observers, clocks: Clocks) -> Outbound:
    """Make pool and circuit breaker; nothing is opened yet."""
    log, metrics = observers.log, observers.metrics
    own_addresses = OwnAddresses()
    pool = build_pool(
        config,
        metrics=metrics,
        clocks=clocks,
        is_own=own_addresses.includes,
        trust_watcher=TrustReports(log=log, metrics=metrics),
    )
    circuit = build_circuit(config, log=log, metrics=metrics, clocks=clocks)
    return Outbound(
        pool=pool,
        circuit=circuit,
        upstream=pool
        if circuit is None
        else GuardedUpstream(pool, circuit=circuit, now=clocks.clock),
        own_addresses=own_addresses,
    )


def build_pool(
    config: Config,
    *,
    metrics: Metrics,
    clocks: Clocks,
    is_own: Callable[[str, int], bool] = lambda _host, _port: False,
    trust_watcher: TrustWatcher | None = None,
) -> Pool:
    """Make the connection pool; nothing is opened yet.

    `is_own` tells whether an address is this proxy's own.

    Raises:
        StartError: `upstream.ca_file` cannot be used.
    """
    upstream = config.upstream
    return Pool(
        parse_address(
            upstream.base_url,
            ca_file=upstream.ca_file,
            address=upstream.address,
            watcher=trust_watcher,
        ),
        timeouts=upstream.timeouts,
        connections=upstream.connections,
        now=clocks.clock,
        watcher=PoolReports(metrics=metrics),
        is_own=is_own,
        max_age=upstream.max_connection_age,
        random=clocks.random,
    )


def build_circuit(
    config: Config, *, log: Log, metrics: Metrics, clocks: Clocks
) -> CircuitBreaker | None:
    """Make the circuit breaker, unless it is off."""
    section = config.upstream.circuit
    if not section.failures:
        return None
    circuit = CircuitBreaker(
        failures=section.failures,
        pause=section.pause,
        random=clocks.random,
        moved=CircuitReports(log=log, metrics=metrics).moved,
    )
    metrics.states(
        "circuit_state",
        "The circuit breaker: 1 at the state it is in.",
        label="state",
        count=lambda: {state: state == circuit.state for state in STATES},
    )
    return circuit


def app_headers(config: Config) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of the app's own requests, without the signature."""
    return (
        (b"Host", upstream_host(config.upstream.base_url)),
        (b"Accept", b"application/json"),
        # Without it any coding is acceptable (RFC 9110, 12.5.3).
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", USER_AGENT),
        # The documentation shows it on all app endpoints (D).
        (VERSION, config.upstream.api_version.encode("ascii")),
    )
