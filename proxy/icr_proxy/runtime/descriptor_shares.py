"""Shares of file descriptors: what the configuration may have of this process's limit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from icr_proxy.errors import StartError
from icr_proxy.net.descriptors import PORT_LEAST, SPARE_LEAST, STARTING, DescriptorShares, share

if TYPE_CHECKING:
    from icr_proxy.config.models import Config


class Room:
    """What fits into this process's limit of open files."""

    def __init__(self, *, limit: int, used: int) -> None:
        self.limit = limit
        self._free = limit - used - STARTING

    def shares(self, config: Config) -> DescriptorShares:
        """Give each kind of connection its share.

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

    def fit(self, config: Config) -> Config:
        """Give the configuration with the limits of connections that are kept.

        Raises:
            StartError: the limit is so low that nothing could be served.
        """
        shares = self.shares(config)
        return replace(
            config,
            limits=replace(config.limits, connections=shares.callers),
            upstream=replace(config.upstream, connections=shares.upstream),
        )

    def fit_again(self, config: Config) -> Config:
        """Do the same while running, where it only says whether something waits for a restart."""
        try:
            return self.fit(config)
        except StartError:
            return config
