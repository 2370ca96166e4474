"""Builds the graph of the program from a configuration. Services are made here and nowhere else."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from proxy import __version__
from proxy.activation import Activation
from proxy.appcalls import AppCalls
from proxy.breaker import Breaker
from proxy.circuit import STATES, Circuit
from proxy.compiling import build_rules, upstream_host
from proxy.dialing import parse_address
from proxy.directory import Directory
from proxy.doorkeeper import Doorkeeper
from proxy.duplicates import Duplicates
from proxy.errors import StartError
from proxy.exchange import Exchange
from proxy.feed import Feed
from proxy.forward import Forwarder
from proxy.guarding import RESULTS, Guard
from proxy.handler import Handler
from proxy.hops import NAME, Hops
from proxy.inflight import InFlight
from proxy.installationmetrics import InstallationMetrics
from proxy.installations import list_installations
from proxy.keyring import KeyRing
from proxy.logs import Bridge, Log, RequestLog, Sampling, Threshold, build_log, where
from proxy.metrics import Metrics
from proxy.ownplaces import OwnPlaces
from proxy.pool import Pool
from proxy.reception import build_listeners
from proxy.reports import ClockReports, KeyReports, TokenReports
from proxy.tokens import Tokens
from proxy.trails import build_auditing
from proxy.upstreamreports import CircuitReports, PoolReports

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.auditing import Auditing
    from proxy.config import Config, TracingConfig
    from proxy.listeners import Listener
    from proxy.outcome import Outcome
    from proxy.spans import Spans
    from proxy.upstream import Upstream

# What a mint says of us; the vendor's own clients send a user agent, too (V).
USER_AGENT = f"icr-proxy/{__version__}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Time and chance, which nothing but this is allowed to fetch for itself."""

    now: Callable[[], float]
    """Seconds since the epoch."""
    clock: Callable[[], float]
    """Seconds that never jump."""
    random: Callable[[], float]
    """At least 0, less than 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The services of one proxy."""

    log: Log
    logger: logging.Logger
    threshold: Threshold
    sampling: Sampling
    spans: Spans | None
    metrics: Metrics
    auditing: Auditing | None
    keys: KeyRing
    pool: Pool
    circuit: Circuit | None
    upstream: Upstream
    """The pool, behind the circuit breaker if there is one."""
    calls: AppCalls
    exchange: Exchange
    tokens: Tokens
    directory: Directory
    in_flight: InFlight
    activation: Activation
    own_places: OwnPlaces
    feed: Feed | None
    """What consoles see; `None` without one."""
    handlers: list[Handler]
    listeners: list[Listener]


def build(config: Config, *, stream: BinaryIO, clocks: Clocks) -> Parts:
    """Make everything; nothing is opened yet.

    Raises:
        KeyUnusableError: the private key cannot be used.
        StartError: another file that the configuration names cannot.
    """
    threshold = Threshold(config.logs.level)
    log = build_log(config.logs, stream=stream, threshold=threshold, now=clocks.now)
    metrics = Metrics()
    spans = build_spans(config.tracing, log=log, clocks=clocks)
    auditing = build_auditing(config, log=log, metrics=metrics, clocks=clocks)
    key_reports = KeyReports(
        log=log,
        metrics=metrics,
        stood=auditing.keys_stand if auditing is not None else lambda _states: None,
    )
    keys = KeyRing(config.app, now=clocks.clock, watcher=key_reports)
    own_places = OwnPlaces()
    pool = build_pool(config, metrics=metrics, clocks=clocks, is_own=own_places.includes)
    circuit = build_circuit(config, log=log, metrics=metrics, clocks=clocks)
    upstream = pool if circuit is None else Breaker(pool, circuit=circuit, now=clocks.clock)
    calls = build_calls(
        config, keys=keys, upstream=upstream, clocks=clocks, skewed=ClockReports(log=log).measured
    )
    exchange = build_exchange(config, calls=calls, clocks=clocks)
    tokens = Tokens(
        mint=exchange.mint,
        config=config.tokens,
        now=clocks.now,
        random=clocks.random,
        watcher=TokenReports(
            log=log, metrics=metrics, **({} if spans is None else {"mint_span": spans.minted})
        ),
        sleep=asyncio.sleep,
    )
    directory = build_directory(config, calls=calls, log=log, clocks=clocks)
    by_installation = InstallationMetrics(
        metrics.registry,
        most=config.metrics.installations_max,
        expiries=lambda: (
            (key.installation, cached.token.expires_at)
            for key, cached in tokens
            if key.installation is not None
        ),
    )
    sampling = Sampling(config.logs.sample_reads)
    readers: list[Callable[[Outcome], None]] = [
        RequestLog(log, sampling=sampling),
        metrics,
        by_installation,
    ]
    if spans is not None:
        readers.append(spans)
    in_flight = InFlight(changed=metrics.in_flight.set)
    feed = build_feed(config, in_flight=in_flight, clocks=clocks)
    if feed is not None:
        readers.append(feed)
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
    doorkeeper = Doorkeeper(
        log=log,
        count=lambda reason: metrics.caller_failures.labels(reason).inc(),
        now=clocks.clock,
        pause=asyncio.sleep,
    )
    guard = build_guard(metrics, clocks=clocks)
    hops = Hops(NAME + b"-" + secrets.token_hex(4).encode())
    handlers = [
        Handler(
            listener=listener.bind,
            rules=build_rules(config, listener),
            forwarder=forwarder,
            guard=guard,
            find=directory.find,
            in_flight=in_flight,
            hops=hops,
            turn_away=doorkeeper.turn_away,
            readers=readers,
            trail=auditing.trail if auditing is not None else None,
            crashed=lambda error, request_id: log.error(
                "request.crashed", request_id=request_id, **where(error)
            ),
            now=clocks.now,
            clock=clocks.clock,
            is_watched=lambda: feed is not None and feed.is_watched,
        )
        for listener in config.listeners
    ]
    metrics.states(
        "limit",
        "What is configured, to compare with.",
        label="of",
        count=lambda: {
            "in_flight": handlers[0].rules.limits.in_flight,
            "upstream_connections": config.upstream.connections,
        },
    )
    logger = library_logger(log)
    activation = Activation(os.environ, process_id=os.getpid())
    return Parts(
        log=log,
        logger=logger,
        threshold=threshold,
        sampling=sampling,
        spans=spans,
        metrics=metrics,
        auditing=auditing,
        keys=keys,
        pool=pool,
        circuit=circuit,
        upstream=upstream,
        calls=calls,
        exchange=exchange,
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
            logger=logger,
            metrics=metrics,
            passed=activation.take,
            now=clocks.now,
        ),
    )


def build_guard(metrics: Metrics, *, clocks: Clocks) -> Guard:
    """Make the one memory of writes that all listeners share."""
    count = {result: metrics.duplicates.labels(result) for result in RESULTS}
    return Guard(
        duplicates=Duplicates(),
        counted=lambda result, number: count[result].inc(number),
        clock=clocks.clock,
    )


def build_spans(config: TracingConfig, *, log: Log, clocks: Clocks) -> Spans | None:
    """Make what sends spans, if they are to be sent; nothing is imported otherwise.

    Raises:
        StartError: the extra that does it is not installed.
    """
    if config.endpoint is None:
        return None
    try:
        from proxy.spans import Spans  # noqa: PLC0415
    except ImportError:
        raise StartError(
            "tracing.endpoint needs OpenTelemetry; install it: pip install 'icr-proxy[otel]'"
        ) from None
    return Spans(config, now=clocks.now, complaints=Bridge(log))


def build_pool(
    config: Config,
    *,
    metrics: Metrics,
    clocks: Clocks,
    is_own: Callable[[str, int], bool] = lambda _host, _port: False,
) -> Pool:
    """Make the connections to the API; none is opened yet.

    `is_own` tells whether an address is this proxy's own.
    """
    upstream = config.upstream
    return Pool(
        parse_address(upstream.base_url, ca_file=upstream.ca_file, address=upstream.address),
        timeouts=upstream.timeouts,
        connections=upstream.connections,
        now=clocks.clock,
        watcher=PoolReports(metrics=metrics),
        is_own=is_own,
    )


def build_circuit(config: Config, *, log: Log, metrics: Metrics, clocks: Clocks) -> Circuit | None:
    """Make the circuit breaker, unless it is off."""
    section = config.upstream.circuit
    if not section.failures:
        return None
    circuit = Circuit(
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


def build_calls(
    config: Config,
    *,
    keys: KeyRing,
    upstream: Upstream,
    clocks: Clocks,
    skewed: Callable[[float], None] = lambda _seconds: None,
) -> AppCalls:
    """Make what the app itself asks the API with; `skewed` hears how far the clocks are apart."""
    return AppCalls(
        app_id=config.app.id,
        signers=keys,
        upstream=upstream,
        headers=app_headers(config),
        now=clocks.now,
        skewed=skewed,
    )


def build_exchange(config: Config, *, calls: AppCalls, clocks: Clocks) -> Exchange:
    """Make what mints tokens."""
    return Exchange(calls=calls, timeout=config.tokens.mint_timeout, now=clocks.now)


def build_directory(config: Config, *, calls: AppCalls, log: Log, clocks: Clocks) -> Directory:
    """Make the map from organizations to installations; nothing is fetched yet."""

    async def fetch() -> dict[str, str]:
        listed = await list_installations(calls)
        return {each.organization_id: each.id for each in listed if each.organization_id}

    return Directory(
        fetch=fetch,
        waiter_timeout=config.tokens.waiter_timeout,
        now=clocks.now,
        renewed=lambda count: log.info("directory.renewed", installations=count),
        failed=lambda error: log.warning("directory.failed", detail=error.detail),
    )


def build_feed(config: Config, *, in_flight: InFlight, clocks: Clocks) -> Feed | None:
    """Make what tells open consoles of requests, if there may be any."""
    if not config.admin.console:
        return None
    return Feed(now=clocks.now, in_flight=lambda: in_flight.count)


def app_headers(config: Config) -> tuple[tuple[bytes, bytes], ...]:
    """Give the headers of the app's own requests, but for its signature."""
    return (
        (b"Host", upstream_host(config.upstream.base_url)),
        (b"Accept", b"application/json"),
        (b"User-Agent", USER_AGENT),
    )


def add_states(
    metrics: Metrics, *, tokens: Tokens, pool: Pool, calls: AppCalls, clocks: Clocks
) -> None:
    """Add what is counted when somebody asks."""
    metrics.states(
        "tokens",
        "Tokens in the cache.",
        label="state",
        count=lambda: (
            dict.fromkeys(("fresh", "due", "dead"), 0)
            | Counter(cached.state(clocks.now()) for _, cached in tokens)
        ),
    )
    metrics.states(
        "upstream_connections",
        "Connections to the API.",
        label="state",
        count=lambda: {
            "idle": pool.idle,
            "active": pool.active,
            "connecting": pool.connecting,
        },
    )
    metrics.waiting.set_function(lambda: pool.waiting)
    metrics.clock_skew.set_function(lambda: calls.skew)


def library_logger(log: Log) -> logging.Logger:
    """Make a logger for libraries that belongs to one proxy alone."""
    logger = logging.Logger("library")  # noqa: LOG001  # not in the global tree: tests have several
    logger.addHandler(Bridge(log))
    return logger
