"""Appends records to the trail: chains them, rotates segments, notices changes from outside.

It blocks and knows no event loop; `audit` runs it in a thread. Whatever cannot be written leaves
chain and file as they were, so that the same records can be tried again.
"""

from __future__ import annotations

import os
import secrets
import shlex
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.audit.anchor import find_rewind, has_heads
from icr_proxy.audit.chain import ChainHead, MacKey, seal_all
from icr_proxy.audit.records import (
    FORMAT,
    EndRecord,
    MovedRecord,
    PrunedRecord,
    Record,
    RewoundRecord,
    SegmentRecord,
)
from icr_proxy.audit.recovery import find_end, recover
from icr_proxy.audit.segments import (
    check_directory,
    check_lock,
    claim_directory,
    create_segment,
    list_segments,
    segment_name,
    sync_directory,
)
from icr_proxy.clock import stamp
from icr_proxy.errors import StartError
from icr_proxy.files import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from icr_proxy.audit.anchor import Rewind
    from icr_proxy.config.models import AuditConfig
    from icr_proxy.redaction import Secret

DAY_SECONDS = 86_400.0
TRAIL_ID_BYTES = 16
ENCODE = msgspec.json.Encoder().encode


class TrailWriter:
    """The one writer of a directory, until it is closed."""

    def __init__(
        self,
        directory: Path,
        *,
        config: AuditConfig,
        key: Secret | None,
        now: Callable[[], float],
        reason: str | None = None,
    ) -> None:
        """Claim the directory and find the end of the chain; nothing is written yet.

        `reason` is why a trail that contradicts its anchor is accepted.

        Raises:
            StartError: the directory cannot be used, is in use, or contradicts its anchor.
        """
        self._directory = directory
        self._config = config
        self._mac_key = MacKey(key.reveal().encode()) if key is not None else None
        self._key_name = key.fingerprint if key is not None else None
        self._now = now
        self._lock = claim_directory(directory)
        try:
            self.rewind = check_anchor(config, directory=directory, reason=reason)
            """How the trail contradicts its anchor; recorded before anything else."""
            recovered = recover(directory, now=now())
        except StartError:
            os.close(self._lock)
            raise
        self.trail = recovered.trail or secrets.token_hex(TRAIL_ID_BYTES)
        """ID of the trail."""
        anchor = config.anchor_file
        is_lost = anchor is not None and bool(recovered.head.seq) and not has_heads(anchor)
        self.missing_anchor = anchor if is_lost and self.rewind is None else None
        """The anchor file, if it is missing though the trail is there."""
        self.head: ChainHead = recovered.head
        """The newest record that was written."""
        self.synced: ChainHead = recovered.head
        """The newest that is known to be on the disk."""
        self._pending: list[Record] = list(recovered.repairs)
        if self.rewind is not None:
            self._pending.append(
                _rewound_record(self.rewind, last=recovered.head.seq, reason=reason, now=now())
            )
        self._previous = recovered.file
        self._file: int | None = None
        self._inode = (0, 0)
        self._path = directory
        self._size = 0
        self._is_dirty = False
        self._records = 0
        self._opened_at = 0.0

    @property
    def segment(self) -> str | None:
        """Name of the file that is being written."""
        return self._path.name if self._file is not None else self._previous

    def append(self, records: Sequence[Record], *, sync: bool) -> None:
        """Write records; with `sync`, return when they are on the disk.

        Raises:
            OSError: none of them counts as written.
        """
        self._check_file()
        if self._file is not None and self._is_rotation_due():
            self._end_segment()
        if self._file is None:
            self._open_segment()
        self._write((*self._pending, *records), sync=sync)
        self._pending.clear()

    def sync(self) -> None:
        """Force what was written to the disk."""
        if self._file is not None and self.synced != self.head:
            os.fsync(self._file)
            self.synced = self.head

    def close(self) -> None:
        """End the segment and release the directory."""
        try:
            with suppress(OSError):
                self._check_file()
                if self._file is not None:
                    self._end_segment()
        finally:
            if self._file is not None:
                os.close(self._file)
                self._file = None
            os.close(self._lock)

    # -- files ------------------------------------------------------------------------------------

    def _open_segment(self) -> None:
        now = self._now()
        path = self._directory / segment_name(self.head.seq + 1, at=now)
        self._file = create_segment(path)
        self._path, self._size, self._records, self._opened_at = path, 0, 0, now
        made = os.fstat(self._file)
        self._inode = (made.st_ino, made.st_dev)
        header = SegmentRecord(
            time=stamp(now),
            format=FORMAT,
            trail=self.trail,
            previous=self._previous,
            key=self._key_name,
            pid=os.getpid(),
            host=socket.gethostname(),
        )
        try:
            self._write((header,), sync=True)
        except OSError:
            self._remove_segment()
            raise
        self._prune()

    def _end_segment(self) -> None:
        """End the segment with its last record."""
        self._write((EndRecord(time=stamp(self._now()), records=self._records + 1),), sync=True)
        self._close_segment()

    def _close_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._previous, self._file = self._path.name, None

    def _remove_segment(self) -> None:
        """Remove a segment whose header could not be written."""
        with suppress(OSError):
            self._path.unlink()
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _is_rotation_due(self) -> bool:
        config = self._config
        return (
            self._size >= config.segment_size or self._now() - self._opened_at >= config.segment_age
        )

    def _check_file(self) -> None:
        """Notice a change of the open file from outside; go on in a new segment then."""
        if self._file is None:
            return
        if self._is_dirty:
            self._discard_partial_write()
        with suppress(OSError):
            theirs = os.stat(self._path)  # noqa: PTH116 - once for each batch
            # No other file can get this inode number while the file is open.
            if (theirs.st_ino, theirs.st_dev) == self._inode and theirs.st_size == self._size:
                return
        found = _classify_change(os.fstat(self._file), size=self._size)
        if found == "renamed":
            self._end_segment()
        else:
            self._close_segment()
        self._pending.append(
            MovedRecord(time=stamp(self._now()), file=self._path.name, found=found)
        )

    def _prune(self) -> None:
        """Record which segments need not be kept, then delete them."""
        keep, days = self._config.keep, self._config.keep_days
        if keep is None and days is None:
            return
        files = list_segments(self._directory)
        gone = files[: len(files) - keep] if keep is not None and len(files) > keep else []
        if days is not None:
            oldest = self._now() - days * DAY_SECONDS
            gone += [path for path in files[len(gone) : -1] if path.stat().st_mtime < oldest]
        if not gone:
            return
        kept = files[len(gone)]
        record = PrunedRecord(
            time=stamp(self._now()),
            before=int(kept.name.split("-")[1]),
            files=tuple(path.name for path in gone),
        )
        self._write((record,), sync=True)
        for path in gone:
            with suppress(OSError):  # the next start or rotation finds it again
                path.unlink()
        sync_directory(self._directory)

    # -- bytes ------------------------------------------------------------------------------------

    def _write(self, records: Sequence[Record], *, sync: bool) -> None:
        lines, head = seal_all(map(ENCODE, records), after=self.head, mac_key=self._mac_key)
        lines.append(b"")
        data = b"\n".join(lines)
        if self._file is None:
            raise OSError("no file is open")
        try:
            write_all(self._file, data)
            if sync:
                os.fsync(self._file)
        except OSError:
            self._discard_partial_write()
            raise
        self._size += len(data)
        self._records += len(records)
        self.head = head
        if sync:
            self.synced = head

    def _discard_partial_write(self) -> None:
        """Truncate a partial write: followed by the next attempt it would look like tampering."""
        self._is_dirty = True
        if self._file is not None:
            os.ftruncate(self._file, self._size)
        self._is_dirty = False


def _classify_change(file: os.stat_result, *, size: int) -> str:
    if not file.st_nlink:
        return "removed"
    if file.st_size == size:
        return "renamed"
    return "truncated" if file.st_size < size else "appended"


def _rewound_record(rewind: Rewind, *, last: int, reason: str | None, now: float) -> RewoundRecord:
    known = rewind.known
    return RewoundRecord(
        time=stamp(now),
        last=last,
        known_seq=known.seq if known is not None else None,
        known_hash=known.hash if known is not None else None,
        reason=reason,
    )


def check_trail(directory: Path, *, config: AuditConfig) -> None:
    """Check a trail as a start does, and change nothing.

    Raises:
        StartError: the proxy would not start with it.
    """
    try:
        check_directory(directory)
    except FileNotFoundError as exc:
        if not directory.parent.is_dir():
            raise StartError(
                f"audit.directory: {directory} cannot be used: {exc.strerror}"
            ) from None
        if not os.access(directory.parent, os.W_OK | os.X_OK, effective_ids=True):
            raise StartError(
                f"audit.directory: {directory} cannot be made: {directory.parent} cannot be"
                " written to"
            ) from None
    except OSError as exc:
        raise StartError(f"audit.directory: {directory} cannot be used: {exc.strerror}") from None
    else:
        check_lock(directory)
    find_end(directory)
    check_anchor(config, directory=directory)


def check_anchor(
    config: AuditConfig, *, directory: Path, reason: str | None = None
) -> Rewind | None:
    """Compare a trail with its anchor; return how they differ if that is to be recorded.

    Raises:
        StartError: they differ, and nobody has accepted that; or the trail cannot be read.
    """
    if config.anchor_file is None:
        return None
    rewind = find_rewind(config.anchor_file, directory=directory)
    if rewind is None or reason is not None or config.on_failure == "continue":
        return rewind
    words = ["icr-proxy", "audit", "accept", str(directory), "--anchor-file"]
    words += [str(config.anchor_file)]
    if config.key_file is not None:
        words += ["--key-file", str(config.key_file)]
    command = f"{shlex.join(words)} --reason 'why'"
    if rewind.known is None:
        raise StartError(
            f"audit.anchor_file: {rewind.detail}, so that the trail cannot be compared with it."
            f" Restore it from a copy. To go on without, and have that recorded, run: {command}"
        )
    raise StartError(
        f"audit.directory: {rewind.detail}; the end of the trail was cut off, or a backup was"
        " restored. Find out which. To go on from here, and have that recorded, run:"
        f" {command}"
    )
