"""Listening sockets: TCP, Unix, and those that a service manager opened (sd_listen_fds(3)).

Nobody can connect before mode and owner are what was configured: the file is made with its mode,
and a socket takes connections only once it listens. No call follows a link that somebody might put
in the file's place meanwhile.

They are systemd's: it opens them as root, keeps them while we restart, and removes their files.
Here they are only taken up, each once, by name or by number.

IPv6 sockets take IPv6 only, whatever the system's default is: `[::]` would otherwise take IPv4
callers as well, and who had restricted the IPv4 side would not know. `*` is both, by a socket of
each family, so that IPv4 callers keep their IPv4 addresses (they would be `::ffff:10.0.0.7`). A
machine that has only one of the families listens on that one.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import pwd
import socket
import stat
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import AddressInUseError, BindError
from icr_proxy.net.addresses import EVERY_ADDRESS, bracketed

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from pathlib import Path

DEFAULT_MODE = 0o600
UNCHANGED = -1  # chown(2): whoever it is already
LIVE_SECONDS = 1.0  # that a program which is stopped or busy may take before it counts as there


class UnixSocket(msgspec.Struct, frozen=True, kw_only=True):
    """An open socket and the file it stands for."""

    socket: socket.socket
    path: Path
    inode: tuple[int, int]

    def remove(self) -> None:
        """Remove the file, unless another program has put its own there."""
        with suppress(OSError):
            if _inode(self.path) == self.inode:
                self.path.unlink()


def open_unix(path: Path, *, mode: int, owner: str | None, backlog: int) -> UnixSocket:
    """Listen on a path; `owner` is `user:group`, `user` or `:group`, by name or number.

    Raises:
        BindError: it cannot be had; the sentence says why.
    """
    user, group = find_owner(owner, path=path)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_room(path)
        _bind(found, path, mode=mode)
        if owner is not None:
            os.chown(path, user, group, follow_symlinks=False)
        inode = _inode(path)
        found.listen(backlog)
        found.setblocking(False)
    except OSError as exc:
        found.close()
        raise BindError(f"cannot listen on unix:{path}: {exc.strerror or 'not usable'}") from None
    except BindError:
        found.close()
        raise
    return UnixSocket(socket=found, path=path, inode=inode)


def _bind(found: socket.socket, path: Path, *, mode: int) -> None:
    """Bind, with the mode given by the mask: chmod(2) would follow a link."""
    before = os.umask(0o777 & ~mode)
    try:
        found.bind(str(path))
    finally:
        os.umask(before)


def _make_room(path: Path) -> None:
    """Remove a socket that nobody listens on any more, and nothing else."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise BindError(f"cannot listen on unix:{path}: a file that is no socket is there")
    if _is_live(path):
        raise AddressInUseError(f"cannot listen on unix:{path}: another program is using it")
    if _inode(path) == (there.st_dev, there.st_ino):
        path.unlink()


def _is_live(path: Path) -> bool:
    """Tell whether somebody listens; what cannot be found out counts as yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(LIVE_SECONDS)
        try:
            probe.connect(str(path))
        except OSError as exc:
            return exc.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def _inode(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def find_owner(owner: str | None, *, path: Path) -> tuple[int, int]:
    """Give the numbers of user and group.

    Raises:
        BindError: this machine does not know one of them.
    """
    user, _, group = (owner or "").partition(":")
    try:
        return _user(user), _group(group)
    except KeyError:
        raise BindError(
            f"cannot listen on unix:{path}: its owner {owner} is not known on this machine"
        ) from None


def _user(name: str) -> int:
    if not name:
        return UNCHANGED
    return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid


def _group(name: str) -> int:
    if not name:
        return UNCHANGED
    return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid


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

    def claim(self, name: str) -> list[socket.socket]:
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
