"""Files of the audit trail: their names, how they are opened, and what a crash left of the last.

A file has one writer in its life: every start begins a new one. Nothing is ever written into the
middle of a file; the only bytes taken away are those of a record that a crash tore.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from proxy.auditchain import BrokenRecordError, Head, Link, unseal
from proxy.auditrecord import Repair
from proxy.errors import StartError
from proxy.moments import stamp

if TYPE_CHECKING:
    from pathlib import Path

NAME = re.compile(r"audit-([0-9]{16})-[0-9]{8}T[0-9]{6}Z\.jsonl")
LOCK = "audit.lock"
PRIVATE, PRIVATE_DIRECTORY = 0o600, 0o700
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def segment_name(seq: int, *, at: float) -> str:
    """Name the file whose first record has this number."""
    return f"audit-{seq:016d}-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}.jsonl"


def list_segments(directory: Path) -> list[Path]:
    """List the files of a trail, oldest first."""
    return sorted(path for path in directory.iterdir() if NAME.fullmatch(path.name))


def claim(directory: Path) -> int:
    """Make sure that the directory is there, ours alone to write to, and in nobody else's use.

    The lock lasts as long as the descriptor that is given, so a crash leaves none behind.

    Raises:
        StartError: it is not, with what to do.
    """
    try:
        directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        found = directory.stat()
        if found.st_mode & OTHERS_MAY_WRITE:
            raise StartError(
                f"audit.directory: others may write to {directory}; chmod go-w {directory}"
            )
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    except OSError as exc:
        raise StartError(f"audit.directory: {directory} cannot be used: {exc.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 20).decode("ascii", "replace").strip()
        os.close(lock)
        raise StartError(
            f"audit.directory: {directory} is in use by process {holder or 'unknown'};"
            " each process needs a directory of its own"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock


def is_in_use(directory: Path) -> bool:
    """Tell whether some process is writing there now."""
    try:
        lock = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def create(path: Path) -> int:
    """Open a new file to append to; its name lasts a crash."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, PRIVATE)
    sync_directory(path.parent)
    return file


def sync_directory(directory: Path) -> None:
    """Force names, not contents, to the disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Left:
    """What the processes before left: where the chain goes on, in which file, what was torn."""

    head: Head
    file: str | None
    repairs: tuple[Repair, ...]


def recover(directory: Path, *, now: float) -> Left:
    """Find the end of the chain; set aside, beside the file, what a crash tore.

    Raises:
        StartError: the files cannot be read or changed.
    """
    repairs: list[Repair] = []
    try:
        for path in reversed(list_segments(directory)):
            last, torn = _examine(path)
            if torn or last is None:
                repairs.append(_set_aside(path, torn, whole=last is None, now=now))
            if last is not None:
                return Left(Head(last.seq, last.hash), path.name, tuple(reversed(repairs)))
    except OSError as exc:
        raise StartError(f"audit.directory: {exc.filename}: {exc.strerror}") from None
    return Left(Head(), None, tuple(reversed(repairs)))


def _examine(path: Path) -> tuple[Link | None, bytes]:
    """Give the last whole record and what comes after it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return None, b""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            end = view.rfind(b"\n") + 1
            while end:
                start = view.rfind(b"\n", 0, end - 1) + 1
                try:
                    return unseal(view[start : end - 1], seals=None), view[end:]
                except BrokenRecordError:  # zeros that a power cut left, for one
                    end = start
            return None, view[:]


def _set_aside(path: Path, torn: bytes, *, whole: bool, now: float) -> Repair:
    aside = path.with_name(f"{path.name}.torn")
    if whole:
        path.rename(aside)
    else:
        file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
        try:
            os.write(file, torn)
            os.fsync(file)
        finally:
            os.close(file)
        os.truncate(path, path.stat().st_size - len(torn))
    sync_directory(path.parent)
    return Repair(
        time=stamp(now),
        file=path.name,
        torn_bytes=len(torn),
        torn_sha256=hashlib.sha256(torn).hexdigest(),
        torn_file=aside.name,
    )
