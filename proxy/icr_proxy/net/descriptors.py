"""File descriptors: how many this process may have, and how connections share them.

A connection that finds none left fails in a place that has nothing to do with it: the admin port
would not answer its probes, and a request would seem to be refused by the API. So the limits of
connections are cut at start to what there is, and some descriptors are kept back.
"""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress

import msgspec

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})
PORT_CONNECTIONS = 64  # on the admin port, and on the one for webhooks, if there are enough
PORT_LEAST = 4
SPARE = 128  # for name lookups, key files, audit segments, a burst of connections
SPARE_LEAST = 12
STARTING = 24  # what a start opens: the event loop, listening sockets, files
WITHOUT_LIMIT = 1 << 30


class DescriptorShares(msgspec.Struct, frozen=True, kw_only=True):
    """How many connections of each kind there may be."""

    callers: int
    upstream: int
    port: int
    """On each port beside the listeners."""


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; give what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a hard limit above that of the system (fs.nr_open)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return WITHOUT_LIMIT if soft == resource.RLIM_INFINITY else soft


def open_now() -> int:
    """Count the open descriptors of this process."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(directory))  # noqa: PTH208  # nothing but the number is needed
    return 0


def share(free: int, *, callers: int, upstream: int, ports: int) -> DescriptorShares | None:
    """Divide `free` descriptors among what is configured; None if there are too few to serve.

    If there are not enough, callers get two thirds at most: a request needs one descriptor on
    either side, but callers also keep idle connections.
    """
    if callers + upstream + ports * PORT_CONNECTIONS + SPARE <= free:
        return DescriptorShares(callers=callers, upstream=upstream, port=PORT_CONNECTIONS)
    port = min(PORT_CONNECTIONS, max(PORT_LEAST, free // 16))
    rest = free - ports * port - min(SPARE, max(SPARE_LEAST, free // 4))
    if rest < 2:  # noqa: PLR2004  # one on either side
        return None
    for_upstream = min(upstream, rest - min(callers, rest * 2 // 3))
    return DescriptorShares(
        callers=min(callers, rest - for_upstream), upstream=for_upstream, port=port
    )


def connections_that_fit(wanted: int) -> int:
    """Give how many of so many connections the limit of open files leaves room for; at least one.

    For a program that makes none itself.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = WITHOUT_LIMIT if soft == resource.RLIM_INFINITY else soft
    return max(1, min(wanted, limit - open_now() - STARTING - SPARE_LEAST))


def is_exhausted(error: OSError) -> bool:
    """Whether an error came because no descriptor was left.

    A name lookup, and an attempt with several addresses, do not say so; hence the try.
    """
    if error.errno in EXHAUSTED:
        return True
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as found:
        return found.errno in EXHAUSTED
    return False
