"""Builds the callers' listeners: for each its socket, its TLS, and what is told about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.listeners import Listener
from proxy.reports import TlsReports

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence

    from proxy.config import Config
    from proxy.handler import Handler
    from proxy.listenerconfig import ListenerConfig
    from proxy.logs import Log
    from proxy.metrics import Metrics
    from proxy.tlsdoor import TlsDoor


def build_listeners(
    config: Config,
    handlers: Sequence[Handler],
    *,
    log: Log,
    logger: logging.Logger,
    metrics: Metrics,
    now: Callable[[], float],
) -> list[Listener]:
    """Make one for each handler; none is open yet.

    Raises:
        StartError: a file of one's `tls` cannot be used.
    """
    listeners = []
    for at, (listener, handler) in enumerate(zip(config.listeners, handlers, strict=True)):
        tls = build_door(listener, key=f"listeners[{at}].tls", log=log, now=now)
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
                tls=tls,
            )
        )
    return listeners


def build_door(
    listener: ListenerConfig, *, key: str, log: Log, now: Callable[[], float]
) -> TlsDoor | None:
    """Make the TLS side of a listener, if it has one."""
    if listener.tls.cert is None:
        return None
    from proxy.tlsdoor import TlsDoor  # noqa: PLC0415 - most sidecars have none, hence no X.509

    watcher = TlsReports(log=log, listener=listener.bind, now=now)
    return TlsDoor(listener.tls, key=key, watcher=watcher)
