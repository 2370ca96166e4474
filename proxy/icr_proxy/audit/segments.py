"""Segments, the files of a trail: their names, how they are created, who may use the directory.

A file has one writer in its life: every start begins a new one. Nothing is ever written into the
middle of a file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from icr_proxy.errors import DirectoryInUseError, StartError
from icr_proxy.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

ROOT_UID = 0
SEGMENT_NAME = re.compile(r"audit-([0-9]{16})-[0-9]{8}T[0-9]{6}Z\.jsonl")
LOCK = "audit.lock"
PRIVATE_DIRECTORY = 0o700
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def segment_name(seq: int, *, at: float) -> str:
    """Return the name of the segment whose first record has this number."""
    return f"audit-{seq:016d}-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}.jsonl"


def list_segments(directory: Path) -> list[Path]:
    """List the segments of a trail, oldest first."""
    return sorted(path for path in directory.iterdir() if SEGMENT_NAME.fullmatch(path.name))


def claim_directory(directory: Path) -> int:
    """Make the directory if need be, check it, and lock it; return the descriptor of the lock.

    The lock lasts as long as the descriptor, so a crash leaves none behind.

    Raises:
        StartError: the directory cannot be used, is in use, or others may write to it.
    """
    try:
        with suppress(FileExistsError):
            directory.mkdir(mode=PRIVATE_DIRECTORY)
        check_directory(directory)
        lock = _open_lock(directory, os.O_RDWR | os.O_CREAT)
    except OSError as exc:
        raise StartError(f"audit.directory: {directory} cannot be used: {exc.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = _read_holder(lock)
        os.close(lock)
        raise _in_use_error(directory, holder=holder) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock


def check_directory(directory: Path) -> None:
    """Check that only the proxy's user and root can change the files in a directory.

    Raises:
        StartError: somebody can.
        OSError: the directory is missing, or cannot be read.
    """
    found = directory.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    if found.st_uid not in (os.geteuid(), ROOT_UID):
        raise StartError(
            f"audit.directory: {directory} belongs to user {found.st_uid}, who could replace the"
            f" files in it; chown it to user {os.geteuid()}, as whom the proxy runs"
        )
    if found.st_mode & OTHERS_MAY_WRITE:
        raise StartError(
            f"audit.directory: others may write to {directory}; chmod go-w {directory}"
        )


def check_lock(directory: Path) -> None:
    """Check that a start could claim an existing directory; change nothing.

    Raises:
        StartError: it could not.
    """
    # For the effective user, and also for root: a file system may be read-only.
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise StartError(f"audit.directory: {directory} cannot be used: it cannot be written to")
    try:
        holder = _find_holder(directory)
    except OSError as exc:
        raise StartError(f"audit.directory: {directory} cannot be used: {exc.strerror}") from None
    if holder is not None:
        raise _in_use_error(directory, holder=holder)


def _in_use_error(directory: Path, *, holder: str) -> DirectoryInUseError:
    return DirectoryInUseError(
        f"audit.directory: {directory} is in use by process {holder.strip() or 'unknown'};"
        " each process needs a directory of its own"
    )


def is_in_use(directory: Path) -> bool:
    """Tell whether some process is writing there now."""
    try:
        return _find_holder(directory) is not None
    except (OSError, StartError):
        return False


def _find_holder(directory: Path) -> str | None:
    """Return the process that has locked the directory, as its lock file names it."""
    try:
        lock = _open_lock(directory, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read_holder(lock)
    finally:
        os.close(lock)
    return None


def _read_holder(lock: int) -> str:
    return os.read(lock, 20).decode("ascii", "replace")


def _open_lock(directory: Path, flags: int) -> int:
    """Open the lock file; refuse a link or a file with a second name."""
    path = directory / LOCK
    try:
        return open_regular(path, flags, only_name=True)
    except OSError as exc:
        if exc.errno not in (errno.ELOOP, errno.EMLINK, errno.EINVAL, errno.ENXIO, errno.EISDIR):
            raise
        raise StartError(
            f"audit.directory: {path} is a link or no regular file; remove it while no proxy runs"
        ) from None


def create_segment(path: Path) -> int:
    """Create a file to append to; its name survives a crash."""
    file = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    sync_directory(path.parent)
    return file


def sync_directory(directory: Path) -> None:
    """Force the names in a directory, not the contents, to the disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
