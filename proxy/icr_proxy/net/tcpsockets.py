"""TCP sockets that listen: one for each address that a host has.

IPv6 sockets take IPv6 only, whatever the system's default is: `[::]` would otherwise take IPv4
callers as well, and who had restricted the IPv4 side would not know. `*` is both, by a socket of
each family, so that IPv4 callers keep their IPv4 addresses (they would be `::ffff:10.0.0.7`). A
machine that has only one of the families listens on that one.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

from icr_proxy.errors import AddressInUseError, BindError
from icr_proxy.net.addresses import EVERY_ADDRESS, bracketed

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = tuple[socket.AddressFamily, str]

WILDCARDS = [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]  # noqa: S104  # asked for by `*`

# A name such as localhost often has an IPv6 address on machines that have no IPv6.
NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
HINTS = {
    errno.EADDRINUSE: "; is another program using it?",
    errno.EACCES: "; ports below 1024 take root, or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "; no network interface of this machine has it",
}
ATTEMPTS = 5  # to find a port that is free on every address, where any port will do


async def open_tcp(host: str, port: int, *, backlog: int) -> list[socket.socket]:
    """Listen on every address of the host, all on one port.

    Raises:
        BindError: one of them cannot be had; the sentence says why.
    """
    bind = f"{bracketed(host)}:{port}"
    try:
        places = await _resolve(host)
    except (OSError, UnicodeError) as exc:  # the latter of a label that no name may have
        reason = getattr(exc, "strerror", None) or "no address"
        raise BindError(f"cannot listen on {bind}: the name is not resolved: {reason}") from None
    left = ATTEMPTS if port == 0 else 1
    while True:
        left -= 1
        try:
            return _open_all(places, port, backlog=backlog)
        except OSError as exc:
            if left and exc.errno == errno.EADDRINUSE:
                continue
            in_use = exc.errno == errno.EADDRINUSE
            reason = exc.strerror or "the address is not usable"
            raise (AddressInUseError if in_use else BindError)(
                f"cannot listen on {bind}: {reason}{HINTS.get(exc.errno or 0, '')}"
            ) from None


async def _resolve(host: str) -> list[Place]:
    if host == EVERY_ADDRESS:
        return WILDCARDS
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = ((family, str(address[0])) for family, _, _, _, address in found)
    return list(dict.fromkeys(places))


def _open_all(places: Sequence[Place], port: int, *, backlog: int) -> list[socket.socket]:
    """Open all, or none and raise OSError; addresses this machine does not have are passed over."""
    opened: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in places:
            try:
                opened.append(_open(family, address, port, backlog=backlog))
            except OSError as exc:
                if exc.errno not in NOT_HERE:
                    raise
                missing = exc
            else:
                port = opened[-1].getsockname()[1]
        if missing is not None and not opened:
            raise missing
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened


def _open(family: socket.AddressFamily, address: str, port: int, *, backlog: int) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of a process that has just ended linger for a minute.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind((address, port))
        found.listen(backlog)
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found
