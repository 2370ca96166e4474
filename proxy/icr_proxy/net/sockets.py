"""A Unix socket that listens: made with its mode, put in a dead one's place, removed in the end.

Nobody can connect before mode and owner are what was configured: the file is made with its mode,
and a socket takes connections only once it listens. No call follows a link that somebody might put
in the file's place meanwhile.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import AddressInUseError, BindError

if TYPE_CHECKING:
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
