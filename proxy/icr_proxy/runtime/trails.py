"""Makes the audit trail, if there is to be one; off, it costs not even an import."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icr_proxy.admin.console_feed import Feed
    from icr_proxy.audit.service import Auditing
    from icr_proxy.clocks import Clocks
    from icr_proxy.config.models import Config
    from icr_proxy.observability.log import Log
    from icr_proxy.observability.metrics import Metrics


def build_auditing(
    config: Config, *, log: Log, metrics: Metrics, feed: Feed | None, clocks: Clocks
) -> Auditing | None:
    """Make the audit trail, if there is to be one; consoles are told of its records.

    Raises:
        StartError: the file with its key cannot be used.
    """
    if config.audit.directory is None:
        return None
    from icr_proxy.audit.service import Auditing  # noqa: PLC0415 - see above

    return Auditing(
        config.audit.directory,
        config=config.audit,
        log=log,
        registry=metrics.registry,
        now=clocks.now,
        clock=clocks.clock,
        **({} if feed is None else {"heard": feed.landed}),
    )
