"""Builds what observes requests: log, metrics, spans, consoles, audit trail."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.admin.console_feed import ConsoleFeed
from icr_proxy.errors import StartError
from icr_proxy.observability.dispatch import Each, OutcomeDispatcher
from icr_proxy.observability.log import (
    LineBuffer,
    Log,
    StdlibLogHandler,
    Threshold,
    build_log,
    writes_json,
)
from icr_proxy.observability.metrics import Metrics
from icr_proxy.observability.request_log import JsonBatch, RequestLog, Sampling
from icr_proxy.observability.request_metrics import InstallationMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.audit.service import AuditService
    from icr_proxy.clock import Clocks
    from icr_proxy.config.models import Config, TracingConfig
    from icr_proxy.credentials.app_client import AppClient
    from icr_proxy.credentials.token_cache import TokenCache
    from icr_proxy.observability.dispatch import OutcomeReader
    from icr_proxy.observability.log import ByteStream
    from icr_proxy.observability.tracing import Spans
    from icr_proxy.server.limits import InFlight
    from icr_proxy.upstream.pool import Pool


class Observers(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that hears of requests, and what may change about it while running."""

    log: Log
    lines: LineBuffer
    """What the log writes to."""
    logger: logging.Logger
    """For libraries, which speak through `logging`."""
    threshold: Threshold
    sampling: Sampling
    metrics: Metrics
    spans: Spans | None
    feed: ConsoleFeed | None
    """What consoles see; `None` without one."""
    audit: AuditService | None


def build_observers(
    config: Config, *, in_flight: InFlight, stream: ByteStream, clocks: Clocks
) -> Observers:
    """Make log and metrics and, as configured, spans, console feed and audit trail."""
    threshold = Threshold(config.logs.level)
    lines = LineBuffer(stream)
    log = build_log(config.logs, lines=lines, threshold=threshold, now=clocks.now)
    metrics = Metrics()
    metrics.add_counter(
        "log_lines_dropped",
        "Log lines that were not written, because nobody read them or writing failed.",
        count=lambda: lines.dropped,
    )
    metrics.in_flight.set_function(lambda: in_flight.count)
    feed = build_feed(config, in_flight=in_flight, clocks=clocks)
    return Observers(
        log=log,
        lines=lines,
        logger=library_logger(log),
        threshold=threshold,
        sampling=Sampling(config.logs.sample_reads),
        metrics=metrics,
        spans=build_spans(config.tracing, log=log, clocks=clocks),
        feed=feed,
        audit=build_auditing(config, log=log, metrics=metrics, feed=feed, clocks=clocks),
    )


def build_dispatcher(
    observers: Observers, *, config: Config, tokens: TokenCache
) -> OutcomeDispatcher:
    """Make what hands outcomes to everything that reads them, in the order in which it does."""
    by_installation = InstallationMetrics(
        observers.metrics.registry,
        most=config.metrics.installations_max,
        expiries=lambda: (
            (key.installation, cached.token.expires_at)
            for key, cached in tokens
            if key.installation is not None
        ),
    )
    lines, feed = observers.lines, observers.feed
    readers: list[OutcomeReader] = [
        RequestLog(
            observers.log,
            batch=JsonBatch(lines, observers.threshold)
            if writes_json(config.logs, lines)
            else None,
            sampling=observers.sampling,
        ),
        observers.metrics,
        by_installation,
        *([Each(observers.spans)] if observers.spans is not None else ()),
        *([feed] if feed is not None else ()),
    ]
    dispatcher = OutcomeDispatcher(
        readers,
        handed_on=lines.flush,
        failed=lambda error: observers.logger.error("an outcome was not read", exc_info=error),
    )
    lines.before_flush = observers.metrics.before_scrape = dispatcher.flush
    if feed is not None:
        feed.before_flush = dispatcher.flush
    return dispatcher


def build_spans(config: TracingConfig, *, log: Log, clocks: Clocks) -> Spans | None:
    """Make what sends spans, if they are to be sent; nothing is imported otherwise.

    Raises:
        StartError: the extra that does it is not installed.
    """
    if config.endpoint is None:
        return None
    try:
        from icr_proxy.observability.tracing import Spans  # noqa: PLC0415
    except ImportError:
        raise StartError(
            "tracing.endpoint needs OpenTelemetry; install it: pip install 'icr-proxy[otel]'"
        ) from None
    return Spans(config, now=clocks.now, complaints=StdlibLogHandler(log))


def build_feed(config: Config, *, in_flight: InFlight, clocks: Clocks) -> ConsoleFeed | None:
    """Make what tells open consoles of requests, if there may be any."""
    if not config.admin.console:
        return None
    return ConsoleFeed(now=clocks.now, in_flight=lambda: in_flight.count)


def add_states(
    metrics: Metrics,
    *,
    config: Config,
    tokens: TokenCache,
    pool: Pool,
    app_client: AppClient,
    in_flight_most: Callable[[], int],
    clocks: Clocks,
) -> None:
    """Add what is read at each scrape; `in_flight_most` is a limit that a reload can change."""
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
    metrics.clock_skew.set_function(lambda: app_client.skew)
    metrics.states(
        "limit",
        "What is configured, to compare with.",
        label="of",
        count=lambda: {
            "in_flight": in_flight_most(),
            "upstream_connections": config.upstream.connections,
        },
    )


def library_logger(log: Log) -> logging.Logger:
    """Make a logger for libraries that belongs to one proxy alone."""
    logger = logging.Logger("library")  # noqa: LOG001  # not in the global tree: tests have several
    logger.addHandler(StdlibLogHandler(log))
    return logger


def build_auditing(
    config: Config, *, log: Log, metrics: Metrics, feed: ConsoleFeed | None, clocks: Clocks
) -> AuditService | None:
    """Make the audit trail, if there is to be one; consoles are told of its records.

    Raises:
        StartError: the file with its key cannot be used.
    """
    if config.audit.directory is None:
        return None
    from icr_proxy.audit.service import AuditService  # noqa: PLC0415 - see above

    return AuditService(
        config.audit.directory,
        config=config.audit,
        log=log,
        registry=metrics.registry,
        now=clocks.now,
        clock=clocks.clock,
        **({} if feed is None else {"on_write": feed.landed}),
    )
