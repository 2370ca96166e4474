"""Where to listen, as configuration writes it: an address, a Unix socket, a socket of systemd's.

Pure text, like `addresses`; whether it can be had is found out when it is opened.
"""

from __future__ import annotations

import re

from icr_proxy.net import addresses

UNIX = "unix:"
SYSTEMD = "systemd:"

_LONGEST_PATH = 107  # bytes; Linux's `sun_path` without its final NUL (unix(7))
_NAME = re.compile(r"[!-9;-~]{1,255}")  # FileDescriptorName= of systemd.socket(5): no colon


def read_bind(raw: str) -> str:
    """Give the canonical spelling; raise ValueError with the rule that was broken."""
    if raw.startswith(UNIX):
        return UNIX + _read_path(raw.removeprefix(UNIX))
    if raw.startswith(SYSTEMD):
        name = raw.removeprefix(SYSTEMD)
        if not _NAME.fullmatch(name):
            raise ValueError(
                "names no socket; write systemd:NAME (its FileDescriptorName=), or systemd:0 for"
                " the first one"
            )
        return SYSTEMD + name
    return addresses.read_bind(raw)


def _read_path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("is not a Unix socket; write unix:/ and the whole path of a file")
    if len(path.encode()) > _LONGEST_PATH:
        raise ValueError(
            f"is too long for a Unix socket; its path has {_LONGEST_PATH} bytes at most"
        )
    return path


def unix_path(bind: str) -> str | None:
    """Give the path of a Unix socket, or None if it is something else."""
    return bind.removeprefix(UNIX) if bind.startswith(UNIX) else None


def systemd_name(bind: str) -> str | None:
    """Give the name of a socket that systemd passes, or None if it is something else."""
    return bind.removeprefix(SYSTEMD) if bind.startswith(SYSTEMD) else None


def host_and_port(bind: str) -> tuple[str, int] | None:
    """Give both, or None if it is no address."""
    if bind.startswith((UNIX, SYSTEMD)):
        return None
    return addresses.split_bind(bind)


def is_reachable(bind: str) -> bool:
    """Tell whether other machines can connect; of a socket of systemd's, only opening tells."""
    place = host_and_port(bind)
    return place is not None and not addresses.is_loopback(place[0])


def collide(one: str, other: str) -> bool:
    """Tell whether one of the two would find its place taken by the other."""
    if host_and_port(one) is None or host_and_port(other) is None:
        return one == other
    return addresses.collide(one, other)
