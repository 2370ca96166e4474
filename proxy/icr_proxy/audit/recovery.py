"""Finds the end of a trail at a start, and sets aside what a crash left behind it.

A crash leaves bytes after the last line break (half a record, or the zeros of a power cut) or a
segment without a whole header. Only that is set aside. A whole line that is no record was changed
by somebody: it stays where it is, and `audit verify` reports it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from icr_proxy.audit.chain import BrokenRecordError, ChainHead, ChainLink, read_link
from icr_proxy.audit.records import RepairRecord
from icr_proxy.audit.segments import SEGMENT_NAME, list_segments, sync_directory
from icr_proxy.clock import stamp
from icr_proxy.errors import StartError
from icr_proxy.files import open_regular, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

ASIDE_NAME = re.compile(rf"({SEGMENT_NAME.pattern})\.torn(?:\.[0-9]{{1,4}})?")
# Longer than a header. A longer segment without a record is not what a crash leaves.
HEADER_MOST = 4096
_ASIDE_MOST = 1000
_TRAIL = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(r"[0-9a-f]{12}")
_PIECE_BYTES = 1 << 20


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """The state in which earlier processes left a trail."""

    head: ChainHead = ChainHead()
    file: str | None = None
    """Name of the segment with the head."""
    trail: str | None = None
    """ID of the trail; old trails have none."""
    key: str | None = None
    """Fingerprint of the MAC key of that segment."""
    repairs: tuple[RepairRecord, ...] = ()
    """Bytes that were set aside, and of which there is no record yet."""


class _SegmentEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one segment."""

    last: ChainLink | None
    size: int
    torn: int
    """Bytes after the last line break."""

    @property
    def is_torn_header(self) -> bool:
        """Whether a crash may have left this segment without a whole record."""
        return self.torn == self.size <= HEADER_MOST


def find_end(directory: Path) -> Recovery:
    """Find the end of the chain; change nothing.

    Raises:
        StartError: the files cannot be read.
    """
    with _start_errors(directory):
        files = list_segments(directory) if directory.exists() else []
        for path in reversed(files):
            last = _read_end(path).last
            if last is not None:
                return Recovery(
                    head=ChainHead(last.seq, last.hash),
                    file=path.name,
                    trail=_find_trail_id(files),
                    key=_matching_field(_read_header(path), "key", _KEY),
                )
    return Recovery()


def recover(directory: Path, *, now: float) -> Recovery:
    """Find the end of the chain; set aside, beside the segment, what a crash left behind it.

    Raises:
        StartError: the files cannot be read or changed.
    """
    found = find_end(directory)
    with _start_errors(directory):
        for path in reversed(list_segments(directory)):
            end = _read_end(path)
            if end.last is None and end.is_torn_header:
                path.rename(_create_aside(path))
                sync_directory(directory)
            elif end.last is not None:
                if end.torn:
                    _set_aside(path, end)
                break
        repairs = tuple(_find_repairs(directory, last=found.file, now=now))
    return msgspec.structs.replace(found, repairs=repairs)


def find_hash(directory: Path, seq: int) -> str | None:
    """Return the hash of the record with this number; `None` if there is none.

    Raises:
        StartError: the files cannot be read.
    """
    with _start_errors(directory):
        for path in reversed(list_segments(directory)):
            if int(path.name.split("-")[1]) <= seq:
                with _map_file(path) as view:
                    line = _find_line(view, seq)
                with suppress(BrokenRecordError):
                    return read_link(line, mac_key=None).hash
    return None


def is_pruned(directory: Path, seq: int) -> bool:
    """Tell from the file names whether the trail begins after this number."""
    files = list_segments(directory)
    return bool(files) and int(files[0].name.split("-")[1]) > seq


def _find_line(view: mmap.mmap | bytes, seq: int) -> bytes:
    start = b'{"seq":%d,' % seq
    at = 0 if view[: len(start)] == start else view.find(b"\n" + start) + 1
    end = view.find(b"\n", at)
    return view[at:end] if end >= 0 and view[at : at + len(start)] == start else b""


@contextmanager
def _start_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StartError(f"audit.directory: {exc.filename or directory}: {exc.strerror}") from None


@contextmanager
def _map_file(path: Path) -> Iterator[mmap.mmap | bytes]:
    """Map a file into memory; an empty one gives `b""`, because mapping it is an error."""
    file = open_regular(path, os.O_RDONLY)
    try:
        if not os.fstat(file).st_size:
            yield b""
            return
        with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as view:
            yield view
    finally:
        os.close(file)


def _read_end(path: Path) -> _SegmentEnd:
    with _map_file(path) as view:
        whole = end = view.rfind(b"\n") + 1
        last = None
        while end and last is None:
            start = view.rfind(b"\n", 0, end - 1) + 1
            with suppress(BrokenRecordError):
                last = read_link(view[start : end - 1], mac_key=None)
            end = start
        return _SegmentEnd(last=last, size=len(view), torn=len(view) - whole)


def _find_trail_id(files: Sequence[Path]) -> str | None:
    """Return the ID in the newest header that has one; an old version may have written the last."""
    found = (_matching_field(_read_header(path), "trail", _TRAIL) for path in reversed(files))
    return next((trail for trail in found if trail is not None), None)


def _read_header(path: Path) -> Mapping[str, Any]:
    """Return the first record of a segment; empty if the first line is no record."""
    with _map_file(path) as view:
        line = view[: max(view.find(b"\n"), 0)]
    with suppress(BrokenRecordError, ValueError, RecursionError):
        read_link(line, mac_key=None)
        header = json.loads(line)
        return header if isinstance(header, dict) else {}
    return {}


def _matching_field(header: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str | None:
    value = header.get(name)
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _create_aside(path: Path) -> Path:
    """Create a file for bytes that are set aside; earlier starts may have taken names."""
    for number in range(_ASIDE_MOST):
        aside = path.with_name(f"{path.name}.torn{f'.{number}' if number else ''}")
        with suppress(FileExistsError):
            os.close(open_regular(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            return aside
    raise FileExistsError(errno.EEXIST, "too many files were set aside already", str(path))


def _set_aside(path: Path, end: _SegmentEnd) -> None:
    aside = _create_aside(path)
    file = open_regular(aside, os.O_WRONLY, only_name=True)
    try:
        with _map_file(path) as view:
            for at in range(end.size - end.torn, end.size, _PIECE_BYTES):
                write_all(file, view[at : at + _PIECE_BYTES])
        os.fsync(file)
    finally:
        os.close(file)
    sync_directory(path.parent)  # so that a crash now leaves the bytes in both files
    torn = open_regular(path, os.O_WRONLY)
    try:
        os.ftruncate(torn, end.size - end.torn)
        os.fsync(torn)
    finally:
        os.close(torn)


def _find_repairs(directory: Path, *, last: str | None, now: float) -> Iterator[RepairRecord]:
    """Find files that were set aside without a record, also by a start that was killed.

    The record is in the segment after the one from which the bytes are.
    """
    for aside in sorted(directory.iterdir()):
        named = ASIDE_NAME.fullmatch(aside.name)
        if named is None or not stat.S_ISREG(aside.lstat().st_mode):
            continue
        if last is not None and (named[1] < last or _mentions(directory / last, aside.name)):
            continue
        with _map_file(aside) as view:
            yield RepairRecord(
                time=stamp(now),
                file=named[1],
                torn_bytes=len(view),
                torn_sha256=hashlib.sha256(view).hexdigest(),
                torn_file=aside.name,
            )


def _mentions(path: Path, name: str) -> bool:
    with _map_file(path) as view:
        return view.find(b'"torn_file":"%b"' % name.encode()) >= 0
