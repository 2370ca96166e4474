"""Makes the audit trail, if there is to be one; off, it costs not even an import."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.auditing import Auditing
    from proxy.clocks import Clocks
    from proxy.config import Config
    from proxy.feed import Feed
    from proxy.logs import Log
    from proxy.metrics import Metrics


def build_auditing(
    config: Config, *, log: Log, metrics: Metrics, feed: Feed | None, clocks: Clocks
) -> Auditing | None:
    """Make the audit trail, if there is to be one; consoles are told of its records.

    Raises:
        StartError: the file with its key cannot be used.
    """
    if config.audit.directory is None:
        return None
    from proxy.auditing import Auditing  # noqa: PLC0415 - see above

    return Auditing(
        config.audit.directory,
        config=config.audit,
        log=log,
        registry=metrics.registry,
        now=clocks.now,
        clock=clocks.clock,
        **({} if feed is None else {"heard": feed.landed}),
    )
