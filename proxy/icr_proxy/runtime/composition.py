"""Builds the graph of the program from a configuration; nowhere else are services made.

`build_observers` makes what watches, `build_outbound` what leads to the API, `build_credentials`
what holds keys and tokens, `build_inbound` what clients reach.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.forwarding.forwarder import Forwarder
from icr_proxy.net.sockets import Activation
from icr_proxy.runtime.build_credentials import (
    build_calls,
    build_directory,
    build_exchange,
    build_keys,
    build_replicas,
    build_tokens,
)
from icr_proxy.runtime.build_inbound import build_handlers, build_listeners
from icr_proxy.runtime.build_observers import (
    add_limits,
    add_states,
    build_auditing,
    build_feed,
    build_observers,
    gathering_for,
)
from icr_proxy.runtime.build_outbound import build_circuit, build_pool
from icr_proxy.runtime.watchers import ClockReports, TrustReports
from icr_proxy.server.limits import InFlight
from icr_proxy.upstream.circuit_breaker import GuardedUpstream
from icr_proxy.upstream.dialer import OwnAddresses

if TYPE_CHECKING:
    import logging

    from icr_proxy.admin.console_feed import ConsoleFeed
    from icr_proxy.audit.service import AuditService
    from icr_proxy.clock import Clocks
    from icr_proxy.config.models import Config
    from icr_proxy.credentials.app_client import AppClient
    from icr_proxy.credentials.installations import InstallationDirectory
    from icr_proxy.credentials.key_ring import KeyRing
    from icr_proxy.credentials.token_cache import TokenCache
    from icr_proxy.credentials.token_exchange import TokenExchange
    from icr_proxy.forwarding.handler import Handler
    from icr_proxy.observability.dispatch import OutcomeDispatcher
    from icr_proxy.observability.log import ByteStream, Log, Threshold
    from icr_proxy.observability.metrics import Metrics
    from icr_proxy.observability.request_log import Sampling
    from icr_proxy.observability.tracing import Spans
    from icr_proxy.server.listener import Listener
    from icr_proxy.shared_cache.membership import Replicas
    from icr_proxy.upstream.circuit_breaker import CircuitBreaker
    from icr_proxy.upstream.interface import Upstream
    from icr_proxy.upstream.pool import Pool


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The services of one proxy."""

    log: Log
    logger: logging.Logger
    threshold: Threshold
    sampling: Sampling
    spans: Spans | None
    metrics: Metrics
    gathering: OutcomeDispatcher
    auditing: AuditService | None
    keys: KeyRing
    pool: Pool
    circuit: CircuitBreaker | None
    upstream: Upstream
    """The pool, behind the circuit breaker if there is one."""
    calls: AppClient
    exchange: TokenExchange
    replicas: Replicas | None
    """What shares tokens with others; `None` if nothing does."""
    tokens: TokenCache
    directory: InstallationDirectory
    in_flight: InFlight
    activation: Activation
    own_places: OwnAddresses
    feed: ConsoleFeed | None
    """What consoles see; `None` without one."""
    handlers: list[Handler]
    listeners: list[Listener]


def build(config: Config, *, stream: ByteStream, clocks: Clocks) -> Parts:
    """Make everything; nothing is opened yet.

    Raises:
        KeyUnusableError: the private key cannot be used.
        StartError: another file that the configuration names cannot.
    """
    observers = build_observers(config, stream=stream, clocks=clocks)
    log, metrics = observers.log, observers.metrics
    in_flight = InFlight()
    metrics.in_flight.set_function(lambda: in_flight.count)
    feed = build_feed(config, in_flight=in_flight, clocks=clocks)
    auditing = build_auditing(config, log=log, metrics=metrics, feed=feed, clocks=clocks)
    keys = build_keys(config, observers=observers, auditing=auditing, clocks=clocks)
    own_places = OwnAddresses()
    pool = build_pool(
        config,
        metrics=metrics,
        clocks=clocks,
        is_own=own_places.includes,
        trust_watcher=TrustReports(log=log, metrics=metrics),
    )
    circuit = build_circuit(config, log=log, metrics=metrics, clocks=clocks)
    upstream = pool if circuit is None else GuardedUpstream(pool, circuit=circuit, now=clocks.clock)
    calls = build_calls(
        config, keys=keys, upstream=upstream, clocks=clocks, skewed=ClockReports(log=log).measured
    )
    exchange = build_exchange(config, calls=calls, clocks=clocks)
    replicas = build_replicas(
        config, mint=exchange.mint, keys=keys, log=log, metrics=metrics, clocks=clocks
    )
    directory = build_directory(config, calls=calls, log=log, clocks=clocks)
    tokens = build_tokens(
        config,
        exchange=exchange,
        replicas=replicas,
        directory=directory,
        observers=observers,
        clocks=clocks,
    )
    add_states(metrics, tokens=tokens, pool=pool, calls=calls, clocks=clocks)
    forwarder = Forwarder(
        tokens=tokens,
        upstream=upstream,
        signature=calls.signature,
        now=clocks.now,
        clock=clocks.clock,
        pause=asyncio.sleep,
        replayed=lambda result: metrics.replays.labels(result).inc(),
    )
    gathering = gathering_for(observers, config=config, tokens=tokens, feed=feed)
    handlers = build_handlers(
        config,
        forwarder=forwarder,
        directory=directory,
        in_flight=in_flight,
        observers=observers,
        read=gathering,
        auditing=auditing,
        watchers=feed.watchers if feed is not None else (),
        clocks=clocks,
    )
    add_limits(metrics, config=config, in_flight=lambda: handlers[0].rules.limits.in_flight)
    activation = Activation(os.environ, process_id=os.getpid())
    return Parts(
        log=log,
        logger=observers.logger,
        threshold=observers.threshold,
        sampling=observers.sampling,
        spans=observers.spans,
        metrics=metrics,
        gathering=gathering,
        auditing=auditing,
        keys=keys,
        pool=pool,
        circuit=circuit,
        upstream=upstream,
        calls=calls,
        exchange=exchange,
        replicas=replicas,
        tokens=tokens,
        directory=directory,
        in_flight=in_flight,
        activation=activation,
        own_places=own_places,
        feed=feed,
        handlers=handlers,
        listeners=build_listeners(
            config,
            handlers,
            log=log,
            logger=observers.logger,
            metrics=metrics,
            passed=activation.claim,
            now=clocks.now,
        ),
    )
