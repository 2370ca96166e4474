"""Builds the callers' listeners: for each its socket, its TLS, and what is told about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.net.sockets import DEFAULT_MODE
from icr_proxy.runtime.watchers import ExhaustionReports, FrontReports, TlsReports
from icr_proxy.server.limits import Places
from icr_proxy.server.listener import Door, Listener

if TYPE_CHECKING:
    import logging
    import socket
    from collections.abc import Callable, Sequence

    from icr_proxy.config.inbound_models import ListenerConfig
    from icr_proxy.config.models import Config
    from icr_proxy.forwarding.handler import Handler
    from icr_proxy.net.tls import TlsDoor
    from icr_proxy.observability.log import Log
    from icr_proxy.observability.metrics import Metrics


def build_listeners(
    config: Config,
    handlers: Sequence[Handler],
    *,
    log: Log,
    logger: logging.Logger,
    metrics: Metrics,
    passed: Callable[[str], list[socket.socket]],
    now: Callable[[], float],
) -> list[Listener]:
    """Make one for each handler; none is open yet.

    Raises:
        StartError: a file of one's `tls` cannot be used.
    """
    arrivals = {result: metrics.arrivals.labels(result) for result in ("accepted", "refused")}
    places = Places(config.limits.connections, arrived=lambda result: arrivals[result].inc())
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
                refuse=handler.refuse,
                limits=config.limits,
                tag=config.headers.installation,
                logger=logger,
                door=Door(
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
    """Tell whether other machines may connect: by the word for it, or because callers are known."""
    known = bool(config.callers) and not listener.anonymous
    return known or listener.exposed or listener.tls.verifies_clients


def build_tls(
    listener: ListenerConfig, *, key: str, log: Log, now: Callable[[], float]
) -> TlsDoor | None:
    """Make the TLS side of a listener, if it has one."""
    if listener.tls.cert is None:
        return None
    from icr_proxy.net.tls import TlsDoor  # noqa: PLC0415 - most sidecars have none, hence no X.509

    watcher = TlsReports(log=log, listener=listener.bind, now=now)
    return TlsDoor(listener.tls, key=key, watcher=watcher)
