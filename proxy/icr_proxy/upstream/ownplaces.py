"""Where this proxy itself listens, so that it notices when the API's name leads back to it.

A tool whose API address is hard-wired is brought here by an entry in /etc/hosts, or by a pod's
`hostAliases`; the proxy reads the same entry, and would ask itself for tokens.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from icr_proxy.net import addresses as binds
from icr_proxy.net.peers import plain_address

if TYPE_CHECKING:
    from collections.abc import Iterable

WILDCARDS = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}  # noqa: S104 - compared, not bound


class OwnPlaces:
    """Addresses and ports of one proxy's listeners."""

    def __init__(self) -> None:
        self._hosts_by_port: dict[int, set[str]] = {}

    def add(self, addresses: Iterable[str]) -> None:
        """Take note of addresses as `Listener.addresses` has them."""
        for address in addresses:
            place = binds.host_and_port(address)
            if place is not None:
                self._hosts_by_port.setdefault(place[1], set()).add(place[0])

    def includes(self, host: str, port: int) -> bool:
        """Tell whether a connection to this IP address and port would come back to us."""
        hosts = self._hosts_by_port.get(port)
        if hosts is None:
            return False
        host = plain_address(host.partition("%")[0])
        return host in hosts or any(
            is_here(host, family=WILDCARDS[each]) for each in hosts & WILDCARDS.keys()
        )


def is_here(host: str, *, family: socket.AddressFamily) -> bool:
    """Tell whether an address is one of this machine's: only those can be bound."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
