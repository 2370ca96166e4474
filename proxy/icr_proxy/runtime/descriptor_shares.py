"""Shares of file descriptors: how many connections fit into this process's limit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from icr_proxy.errors import StartError
from icr_proxy.net.descriptors import PORT_LEAST, SPARE_LEAST, STARTING, DescriptorShares, share

if TYPE_CHECKING:
    from icr_proxy.config.models import Config


class DescriptorLimit:
    """The limit of open files, shared out to kinds of connections."""

    def __init__(self, *, limit: int, used: int) -> None:
        self.limit = limit
        self._free = limit - used - STARTING

    def shares(self, config: Config) -> DescriptorShares:
        """Return the share of each kind of connection.

        Raises:
            StartError: the limit is so low that nothing could be served.
        """
        ports = 1 if config.webhooks.bind is None else 2
        free = self._free - len(config.listeners)
        shares = share(
            free,
            callers=config.limits.connections,
            upstream=config.upstream.connections,
            ports=ports,
        )
        if shares is None:
            least = self.limit - free + ports * PORT_LEAST + SPARE_LEAST + 2
            raise StartError(
                f"the limit of open files is {self.limit}, and at least {least} are needed;"
                " raise it (ulimit -n, LimitNOFILE= of systemd)"
            )
        return shares

    def clamp(self, config: Config) -> Config:
        """Return the configuration with limits of connections that fit.

        Raises:
            StartError: the limit is so low that nothing could be served.
        """
        shares = self.shares(config)
        return replace(
            config,
            limits=replace(config.limits, connections=shares.callers),
            upstream=replace(config.upstream, connections=shares.upstream),
        )

    def clamp_running(self, config: Config) -> Config:
        """Do the same for a reload, which must not fail; the limits themselves need a restart."""
        try:
            return self.clamp(config)
        except StartError:
            return config
