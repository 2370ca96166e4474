"""Builds what clients and operators reach: listeners, admin port, webhooks."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.admin.api import AdminActions, AdminApi
from icr_proxy.admin.auth import AdminAuthorizer
from icr_proxy.admin.console_pages import Console
from icr_proxy.admin.webhooks import RESULTS, WebhookReceiver
from icr_proxy.config.inbound_models import ListenerConfig
from icr_proxy.forwarding import duplicate_guard
from icr_proxy.forwarding.duplicate_guard import DuplicateGuard
from icr_proxy.forwarding.duplicate_store import DuplicateStore
from icr_proxy.forwarding.forwarder import Forwarder
from icr_proxy.forwarding.handler import Handler
from icr_proxy.forwarding.listener_rules import build_rules
from icr_proxy.http1.headers import NAME, LoopDetector
from icr_proxy.net import addresses
from icr_proxy.net.sockets import DEFAULT_MODE, Activation
from icr_proxy.observability.log import where
from icr_proxy.policy.browser_guard import HostGuard, OriginGuard
from icr_proxy.policy.caller_auth import AuthThrottle
from icr_proxy.redaction import Secret, SecretFile
from icr_proxy.runtime.build_observers import build_dispatcher
from icr_proxy.runtime.watchers import ExhaustionReports, FrontReports, TlsReports
from icr_proxy.server.limits import ConnectionLimit
from icr_proxy.server.listener import Listener, ListenerOptions

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from icr_proxy.admin.console_feed import ConsoleFeed
    from icr_proxy.clock import Clocks
    from icr_proxy.config.models import Config, WebhooksConfig
    from icr_proxy.credentials.installations import InstallationDirectory
    from icr_proxy.credentials.token_cache import TokenCache
    from icr_proxy.errors import StartError
    from icr_proxy.net.tls import ReloadingSslContext
    from icr_proxy.observability.dispatch import OutcomeDispatcher
    from icr_proxy.observability.log import Log
    from icr_proxy.observability.metrics import Metrics
    from icr_proxy.observability.outcome import Outcome
    from icr_proxy.runtime.build_credentials import Credentials
    from icr_proxy.runtime.build_observers import Observers
    from icr_proxy.server.connection import Refuse, Respond
    from icr_proxy.server.limits import InFlight
    from icr_proxy.server.response import Page
    from icr_proxy.upstream.interface import Upstream


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """Listeners, and all that serves their requests."""

    in_flight: InFlight
    dispatcher: OutcomeDispatcher
    handlers: list[Handler]
    listeners: list[Listener]
    activation: Activation


def build_inbound(
    config: Config,
    *,
    in_flight: InFlight,
    upstream: Upstream,
    credentials: Credentials,
    observers: Observers,
    clocks: Clocks,
) -> Inbound:
    """Make listeners and all that serves their requests; nothing is opened yet."""
    metrics = observers.metrics
    dispatcher = build_dispatcher(observers, config=config, tokens=credentials.tokens)
    forwarder = Forwarder(
        tokens=credentials.tokens,
        upstream=upstream,
        signature=credentials.app_client.signature,
        now=clocks.now,
        clock=clocks.clock,
        pause=asyncio.sleep,
        replayed=lambda result: metrics.replays.labels(result).inc(),
    )
    handlers = build_handlers(
        config,
        forwarder=forwarder,
        directory=credentials.directory,
        in_flight=in_flight,
        observers=observers,
        read=dispatcher,
        clocks=clocks,
    )
    activation = Activation(os.environ, process_id=os.getpid())
    listeners = build_listeners(
        config, handlers, observers=observers, passed=activation.claim, now=clocks.now
    )
    return Inbound(
        in_flight=in_flight,
        dispatcher=dispatcher,
        handlers=handlers,
        listeners=listeners,
        activation=activation,
    )


def build_admin(
    config: Config,
    *,
    observers: Observers,
    tokens: TokenCache,
    passed: Callable[[str], list[socket.socket]],
    state: Callable[[], str],
    status: Callable[[], Mapping[str, object]],
    token: Callable[[], Secret | None],
    current: Callable[[], Config],
    stop: Callable[[], bool],
    connections: int,
) -> Listener:
    """Make the admin port, for so many `connections`.

    `passed` gives the sockets that systemd opened for an address, `state` is one of those of
    `app.App`, `token` opens the port to other machines, `current` gives the configuration as it is
    after reloads, `stop` is what is asked for by POST /quit.
    """
    bind, log, audit = config.admin.bind, observers.log, observers.audit
    observers.metrics.blocked.set_function(lambda: len(tokens.blocked))
    admin = AdminApi(
        started=lambda: state() != "starting",
        ready=lambda: state() == "ready",
        metrics=observers.metrics.render,
        status=status,
        control=AdminActions(
            tokens=tokens,
            stop=stop,
            log=log,
            on_action=audit.record_action if audit is not None else unheard,
        ),
        gate=AdminAuthorizer(bind, token=token),
        console=build_console(observers.feed, status=status, current=current),
        # No further name than the bound one: here, nobody poses as the API.
        hosts=HostGuard(
            ListenerConfig(bind=bind, exposed=addresses.is_reachable(bind)),
            base_url="http://localhost",
        ),
        origins=OriginGuard(()),
        crashed=lambda error, path: log.error("admin.crashed", path=path, **where(error)),
    )
    return _listener(
        bind,
        config,
        observers=observers,
        passed=passed,
        respond=admin,
        refuse=admin.respond_error,
        exposed=True,
        connections=connections,
    )


def unheard(_switch: str, _installation: str | None, _peer: str) -> None:
    """Without an audit trail the log alone tells of a switch."""


def build_console(
    feed: ConsoleFeed | None,
    *,
    status: Callable[[], Mapping[str, object]],
    current: Callable[[], Config],
) -> Console | None:
    """Make the console, if there is one; what it asks for is imported when it asks."""
    if feed is None:
        return None

    def facts() -> Mapping[str, object]:
        from icr_proxy.admin.console_queries import facts as tell  # noqa: PLC0415

        return tell(current())

    def explain(body: bytes) -> Page:
        from icr_proxy.admin.console_queries import answer_explain  # noqa: PLC0415

        return answer_explain(body, config=current(), status=status())

    return Console(feed=feed, facts=facts, explain=explain)


def build_webhooks(
    config: Config,
    *,
    observers: Observers,
    tokens: TokenCache,
    passed: Callable[[str], list[socket.socket]],
    connections: int,
) -> Listener | None:
    """Make the port for webhooks, if there is to be one, for so many `connections`.

    Raises:
        StartError: the file with the secret cannot be used.
    """
    bind = config.webhooks.bind
    if bind is None:
        return None
    log, metrics = observers.log, observers.metrics
    count = {result: metrics.webhooks.labels(result) for result in RESULTS}
    deliveries = WebhookReceiver(
        path=config.webhooks.path,
        secret=read_webhook_secret(config.webhooks, log=log),
        drop=tokens.invalidate,
        count=lambda result: count[result].inc(),
        log=log,
    )
    return _listener(
        bind,
        config,
        observers=observers,
        passed=passed,
        respond=deliveries,
        refuse=deliveries.respond_error,
        exposed=config.webhooks.exposed,
        connections=connections,
    )


def read_webhook_secret(config: WebhooksConfig, *, log: Log) -> Callable[[], Secret]:
    """Give the secret that deliveries are signed with; one of the two is there (`config`)."""

    def rejected(error: StartError) -> None:
        log.error("webhook.secret_rejected", detail=error.detail)

    if config.secret_file is not None:
        return SecretFile(config.secret_file, key="webhooks.secret_file", rejected=rejected)
    secret = config.secret or Secret("")  # which verifies nothing; `config` demands one of the two
    return lambda: secret


def _listener(
    bind: str,
    config: Config,
    *,
    observers: Observers,
    passed: Callable[[str], list[socket.socket]],
    respond: Respond,
    refuse: Refuse,
    exposed: bool,
    connections: int,
) -> Listener:
    return Listener(
        bind,
        respond=respond,
        refuse=refuse,
        limits=config.limits,
        tag=config.headers.installation,
        logger=observers.logger,
        door=ListenerOptions(
            may_be_reached=exposed,
            passed=passed,
            exhausted=ExhaustionReports(log=observers.log),
        ),
        places=ConnectionLimit(connections),
        evicts=True,
    )


def build_listeners(
    config: Config,
    handlers: Sequence[Handler],
    *,
    observers: Observers,
    passed: Callable[[str], list[socket.socket]],
    now: Callable[[], float],
) -> list[Listener]:
    """Make one for each handler; none is open yet.

    Raises:
        StartError: a file of one's `tls` cannot be used.
    """
    log, metrics = observers.log, observers.metrics
    arrivals = {result: metrics.arrivals.labels(result) for result in ("accepted", "refused")}
    places = ConnectionLimit(
        config.limits.connections, arrived=lambda result: arrivals[result].inc()
    )
    metrics.callers.set_function(lambda: places.taken)
    listeners = []
    for at, (listener, handler) in enumerate(zip(config.listeners, handlers, strict=True)):
        tls = build_tls(listener, key=f"listeners[{at}].tls", log=log, now=now)
        if tls is not None:
            metrics.certificate_expiry.labels(listener.bind).set_function(tls.expires_at)
        listeners.append(
            Listener(
                listener.bind,
                respond=handler,
                refuse=handler.respond_error,
                limits=config.limits,
                tag=config.headers.installation,
                logger=observers.logger,
                door=ListenerOptions(
                    mode=int(listener.mode, 8) if listener.mode is not None else DEFAULT_MODE,
                    owner=listener.owner,
                    may_be_reached=may_be_reached(listener, config),
                    passed=passed,
                    tls=tls,
                    fronted_by=listener.proxy_protocol_from if listener.proxy_protocol else None,
                    front_refused=FrontReports(log=log, metrics=metrics, listener=listener.bind),
                    exhausted=ExhaustionReports(log=log),
                ),
                places=places,
            )
        )
    return listeners


def may_be_reached(listener: ListenerConfig, config: Config) -> bool:
    """Tell whether other machines may connect: by `exposed`, or because clients authenticate."""
    known = bool(config.callers) and not listener.anonymous
    return known or listener.exposed or listener.tls.verifies_clients


def build_tls(
    listener: ListenerConfig, *, key: str, log: Log, now: Callable[[], float]
) -> ReloadingSslContext | None:
    """Make the TLS side of a listener, if it has one."""
    if listener.tls.cert is None:
        return None
    from icr_proxy.net.tls import ReloadingSslContext  # noqa: PLC0415 - most sidecars have none, hence no X.509

    watcher = TlsReports(log=log, listener=listener.bind, now=now)
    return ReloadingSslContext(listener.tls, key=key, watcher=watcher)


def build_handlers(
    config: Config,
    *,
    forwarder: Forwarder,
    directory: InstallationDirectory,
    in_flight: InFlight,
    observers: Observers,
    read: Callable[[Outcome], None],
    clocks: Clocks,
) -> list[Handler]:
    """Make one handler for each listener; they share the guard, the throttle and the counts."""
    log, metrics, audit = observers.log, observers.metrics, observers.audit
    throttle = AuthThrottle(
        log=log,
        count=lambda reason: metrics.caller_failures.labels(reason).inc(),
        now=clocks.clock,
        pause=asyncio.sleep,
    )
    guard = build_guard(metrics, clocks=clocks)
    hops = LoopDetector(NAME + b"-" + secrets.token_hex(4).encode())
    return [
        Handler(
            listener=listener.bind,
            rules=build_rules(config, listener),
            forwarder=forwarder,
            guard=guard,
            find=directory.lookup,
            in_flight=in_flight,
            hops=hops,
            turn_away=throttle.reject,
            read=read,
            trail=audit.trail if audit is not None else None,
            crashed=lambda error, request_id: log.error(
                "request.crashed", request_id=request_id, **where(error)
            ),
            now=clocks.now,
            clock=clocks.clock,
            watchers=observers.feed.watchers if observers.feed is not None else (),
        )
        for listener in config.listeners
    ]


def build_guard(metrics: Metrics, *, clocks: Clocks) -> DuplicateGuard:
    """Make the duplicate guard that all listeners share."""
    count = {result: metrics.duplicates.labels(result) for result in duplicate_guard.RESULTS}
    return DuplicateGuard(
        duplicates=DuplicateStore(),
        counted=lambda result, number: count[result].inc(number),
        clock=clocks.clock,
    )
