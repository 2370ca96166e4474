"""How late a failure is answered: later each time, by the address that it comes from.

This is for those who try keys, and for tools in a loop. A key that is right is never late, wherever
it comes from: many callers may share an address, and one of them must not shut out the others.
"""

from __future__ import annotations

import ipaddress

import msgspec

from icr_proxy.lru_cache import Recent

FIRST_SECONDS = 0.1  # from the second failure on, twice as long each time …
MOST_SECONDS = 5.0  # … and no longer than a tool waits without giving up
FORGET_SECONDS = 60.0  # without a failure, and all is forgotten
MOST_DOUBLINGS = 10


class Failures(msgspec.Struct):
    """Those of one address: how many, and when the last was."""

    count: int
    at: float


class Lateness:
    """The failures of all addresses; bounded, the least recently seen leaves first."""

    def __init__(self, *, max_entries: int = 4096) -> None:
        self._failures: Recent[str, Failures] = Recent(max_entries)

    def __len__(self) -> int:
        return len(self._failures)

    def fail(self, peer: str, *, now: float) -> tuple[int, float]:
        """Count a failure; give how many there were, and how many seconds to wait."""
        place = neighbourhood(peer)
        failures = self._failures.use(place)
        if failures is None or now - failures.at > FORGET_SECONDS:
            failures = self._failures[place] = Failures(0, now)
        failures.count += 1
        failures.at = now
        if failures.count == 1:
            return 1, 0.0
        doublings = min(failures.count - 2, MOST_DOUBLINGS)
        return failures.count, min(MOST_SECONDS, FIRST_SECONDS * 2**doublings)


def neighbourhood(peer: str) -> str:
    """Give the address, of IPv6 the /64: whoever has one has them all (RFC 6177)."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer.partition(",")[0]  # of a Unix socket, the user and not the process
    if isinstance(address, ipaddress.IPv4Address):
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False).network_address)
