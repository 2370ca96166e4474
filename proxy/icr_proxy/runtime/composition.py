"""Builds the graph of the program from a configuration; nowhere else are services made.

`build_observers` makes what watches, `build_outbound` what leads to the API, `build_inbound` what
callers reach.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.credentials.key_ring import KeyRing
from icr_proxy.credentials.token_cache import Tokens
from icr_proxy.forwarding.duplicate_guard import RESULTS, Guard
from icr_proxy.forwarding.duplicate_store import Duplicates
from icr_proxy.forwarding.forwarder import Forwarder
from icr_proxy.forwarding.handler import Handler
from icr_proxy.forwarding.listener_rules import build_rules
from icr_proxy.http1.headers import NAME, Hops
from icr_proxy.net.sockets import Activation
from icr_proxy.observability.log import where
from icr_proxy.policy.caller_auth import Doorkeeper
from icr_proxy.runtime.build_inbound import build_listeners
from icr_proxy.runtime.build_observers import (
    add_limits,
    add_states,
    build_auditing,
    build_feed,
    build_observers,
    gathering_for,
)
from icr_proxy.runtime.build_outbound import (
    build_calls,
    build_circuit,
    build_directory,
    build_exchange,
    build_pool,
    build_replicas,
)
from icr_proxy.runtime.watchers import ClockReports, KeyReports, TokenReports, TrustReports
from icr_proxy.server.limits import InFlight
from icr_proxy.upstream.circuit_breaker import Breaker
from icr_proxy.upstream.dialer import OwnPlaces

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sized

    from icr_proxy.admin.console_feed import Feed
    from icr_proxy.audit.service import Auditing
    from icr_proxy.clock import Clocks
    from icr_proxy.config.models import Config
    from icr_proxy.credentials.app_client import AppCalls
    from icr_proxy.credentials.installations import Directory
    from icr_proxy.credentials.token_exchange import Exchange
    from icr_proxy.observability.dispatch import Gathering
    from icr_proxy.observability.log import ByteStream, Log, Threshold
    from icr_proxy.observability.metrics import Metrics
    from icr_proxy.observability.outcome import Outcome
    from icr_proxy.observability.request_log import Sampling
    from icr_proxy.observability.tracing import Spans
    from icr_proxy.runtime.build_observers import Observers
    from icr_proxy.server.listener import Listener
    from icr_proxy.shared_cache.membership import Replicas
    from icr_proxy.upstream.circuit_breaker import Circuit
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
    gathering: Gathering
    auditing: Auditing | None
    keys: KeyRing
    pool: Pool
    circuit: Circuit | None
    upstream: Upstream
    """The pool, behind the circuit breaker if there is one."""
    calls: AppCalls
    exchange: Exchange
    replicas: Replicas | None
    """What shares tokens with others; `None` if nothing does."""
    tokens: Tokens
    directory: Directory
    in_flight: InFlight
    activation: Activation
    own_places: OwnPlaces
    feed: Feed | None
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
    own_places = OwnPlaces()
    pool = build_pool(
        config,
        metrics=metrics,
        clocks=clocks,
        is_own=own_places.includes,
        trust_watcher=TrustReports(log=log, metrics=metrics),
    )
    circuit = build_circuit(config, log=log, metrics=metrics, clocks=clocks)
    upstream = pool if circuit is None else Breaker(pool, circuit=circuit, now=clocks.clock)
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
            passed=activation.take,
            now=clocks.now,
        ),
    )


def build_keys(
    config: Config, *, observers: Observers, auditing: Auditing | None, clocks: Clocks
) -> KeyRing:
    """Make the ring of the app's private keys.

    Raises:
        KeyUnusableError: there is none that can be used.
    """
    watcher = KeyReports(
        log=observers.log,
        metrics=observers.metrics,
        stood=auditing.keys_stand if auditing is not None else lambda _states: None,
    )
    return KeyRing(config.app, now=clocks.clock, watcher=watcher)


def build_tokens(
    config: Config,
    *,
    exchange: Exchange,
    replicas: Replicas | None,
    directory: Directory,
    observers: Observers,
    clocks: Clocks,
) -> Tokens:
    """Make the cache of tokens; nothing is minted yet."""
    spans = observers.spans
    return Tokens(
        mint=exchange.mint if replicas is None else replicas.sharing.mint,
        config=config.tokens,
        now=clocks.now,
        random=clocks.random,
        watcher=TokenReports(
            log=observers.log,
            metrics=observers.metrics,
            **({} if spans is None else {"mint_span": spans.minted}),
        ),
        sleep=asyncio.sleep,
        listing=directory,
        **({} if replicas is None else {"dropped": replicas.drops.drop}),
    )


def build_handlers(
    config: Config,
    *,
    forwarder: Forwarder,
    directory: Directory,
    in_flight: InFlight,
    observers: Observers,
    read: Callable[[Outcome], None],
    auditing: Auditing | None,
    watchers: Sized,
    clocks: Clocks,
) -> list[Handler]:
    """Make one handler for each listener; what protects all of them together is shared."""
    log, metrics = observers.log, observers.metrics
    doorkeeper = Doorkeeper(
        log=log,
        count=lambda reason: metrics.caller_failures.labels(reason).inc(),
        now=clocks.clock,
        pause=asyncio.sleep,
    )
    guard = build_guard(metrics, clocks=clocks)
    hops = Hops(NAME + b"-" + secrets.token_hex(4).encode())
    return [
        Handler(
            listener=listener.bind,
            rules=build_rules(config, listener),
            forwarder=forwarder,
            guard=guard,
            find=directory.find,
            in_flight=in_flight,
            hops=hops,
            turn_away=doorkeeper.turn_away,
            read=read,
            trail=auditing.trail if auditing is not None else None,
            crashed=lambda error, request_id: log.error(
                "request.crashed", request_id=request_id, **where(error)
            ),
            now=clocks.now,
            clock=clocks.clock,
            watchers=watchers,
        )
        for listener in config.listeners
    ]


def build_guard(metrics: Metrics, *, clocks: Clocks) -> Guard:
    """Make the one memory of writes that all listeners share."""
    count = {result: metrics.duplicates.labels(result) for result in RESULTS}
    return Guard(
        duplicates=Duplicates(),
        counted=lambda result, number: count[result].inc(number),
        clock=clocks.clock,
    )
