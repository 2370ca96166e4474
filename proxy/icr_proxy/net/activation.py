"""Sockets that a service manager opened before we were started: sd_listen_fds(3).

They are systemd's: it opens them as root, keeps them while we restart, and removes their files.
Here they are only taken up, each once, by name or by number.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from typing import TYPE_CHECKING

from icr_proxy.errors import BindError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

FIRST = 3  # SD_LISTEN_FDS_START: what comes after standard input, output and error
UNNAMED = "unknown"  # what systemd itself calls a socket without a name
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class Activation:
    """What was passed to this process; read, and taken out of the environment, on first use."""

    def __init__(
        self, environ: MutableMapping[str, str], *, process_id: int, first: int = FIRST
    ) -> None:
        self._environ = environ
        self._process_id = process_id
        self._first = first
        self._by_name: dict[str, list[int]] | None = None
        self._numbers: list[int] = []
        self._why_none = ""

    def take(self, name: str) -> list[socket.socket]:
        """Give the sockets of that name, or the one of that number, counted from 0.

        Raises:
            BindError: there is none; the sentence says why.
        """
        if self._by_name is None:
            self._by_name = self._read()
        numbers = self._by_name.get(name, [])
        if not numbers and name.isdecimal() and int(name) < len(self._numbers):
            numbers = [self._numbers[int(name)]]
        if not numbers:
            raise BindError(f"cannot listen on systemd:{name}: {self._missing()}")
        return [_socket(number, name=name) for number in numbers]

    def _read(self) -> dict[str, list[int]]:
        given = {name: self._environ.pop(name, "") for name in VARIABLES}
        count, owner = given["LISTEN_FDS"], given["LISTEN_PID"]
        if not (count.isdecimal() and owner.isdecimal()):
            self._why_none = (
                "no socket was passed; start the proxy by a socket unit, or write an address"
            )
            return {}
        if int(owner) != self._process_id:
            self._why_none = (
                f"the sockets were passed to process {owner}, and this is {self._process_id};"
                " start the proxy itself and not a program that starts it"
            )
            return {}
        self._numbers = list(range(self._first, self._first + int(count)))
        names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else []
        by_name: dict[str, list[int]] = defaultdict(list)
        for at, number in enumerate(self._numbers):
            by_name[names[at] if at < len(names) and names[at] else UNNAMED].append(number)
        return dict(by_name)

    def _missing(self) -> str:
        if self._why_none:
            return self._why_none
        known = ", ".join(self._by_name or ()) or "none"
        return f"no socket has that name; passed were {len(self._numbers)}: {known}"


def _socket(number: int, *, name: str) -> socket.socket:
    try:
        found = socket.socket(fileno=number)
    except OSError:
        raise BindError(
            f"cannot listen on systemd:{name}: descriptor {number} is no socket"
        ) from None
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if found.type != socket.SOCK_STREAM or not listens:
        found.detach()  # it is not ours to close
        raise BindError(
            f"cannot listen on systemd:{name}: it takes no connections; the socket unit needs"
            " ListenStream= and Accept=no"
        )
    found.set_inheritable(False)
    found.setblocking(False)
    return found
