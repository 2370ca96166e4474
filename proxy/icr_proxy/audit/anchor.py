"""The anchor file: heads of a trail, kept where an attacker who cuts the trail cannot change them.

Each line is a head that was published, the newest last. A start compares the newest with the trail.
A trail that ends before it, or has another record there, was cut or restored from a backup. A line
with `rewound` says that this was accepted; the lines above it stay, but are no longer compared.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.audit.recovery import find_end, find_hash, is_pruned
from icr_proxy.audit.segments import sync_directory
from icr_proxy.clock import stamp
from icr_proxy.files import open_regular, read_bytes, replace_file, write_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from icr_proxy.audit.chain import ChainHead
    from icr_proxy.audit.recovery import Recovery

MODE = 0o644  # heads are no secret, and monitoring may want to read them
LONGEST = 1 << 20  # bytes, about 5,000 lines; above it every second of the older lines is removed
NEWEST_KEPT = 1000  # lines that are always kept
READ_MOST = 64 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_SEQ_MOST = 10**18


class AnchorState(msgspec.Struct, frozen=True, kw_only=True):
    """A head that was published."""

    seq: int
    hash: str
    trail: str | None = None
    rewound: bool = False
    """Whether this is the head of a `rewound` record."""


class AnchorHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The heads in an anchor file since the last one that was accepted as rewound."""

    heads: tuple[AnchorState, ...] = ()
    is_garbled: bool = False
    """Whether the file has lines, and none of them is a head."""

    @property
    def newest(self) -> AnchorState | None:
        """The head with the highest number."""
        return max(self.heads, key=lambda known: known.seq, default=None)


def read_history(path: Path) -> AnchorHistory:
    """Read an anchor file; one that is missing, or that a crash left empty, has no heads.

    Raises:
        ValueError: it cannot be read; the rest of a sentence that begins with the path.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return AnchorHistory()
    except OSError as exc:
        raise ValueError(f"cannot be read: {exc.strerror}") from None
    return parse_history(read_bytes(path, limit=READ_MOST))


def has_heads(path: Path) -> bool:
    """Tell whether an anchor file can be read and holds a head."""
    try:
        return bool(read_history(path).heads)
    except ValueError:
        return False


def parse_history(raw: bytes) -> AnchorHistory:
    """Parse an anchor file. Lines that are no heads are ignored.

    So are bytes after the last line break, if they are no head: a crash may leave them.
    """
    *lines, rest = raw.split(b"\n")
    heads = [known for line in lines if (known := _parse_head(line)) is not None]
    last = _parse_head(rest)
    if last is not None:
        heads.append(last)
    is_garbled = not heads and any(line.strip(b"\0 \r\t") for line in lines)
    accepted = max((at for at, known in enumerate(heads) if known.rewound), default=0)
    return AnchorHistory(heads=tuple(heads[accepted:]), is_garbled=is_garbled)


def _parse_head(line: bytes) -> AnchorState | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    seq, digest, trail = found.get("seq"), found.get("hash"), found.get("trail")
    if type(seq) is not int or not 0 <= seq < _SEQ_MOST:
        return None
    if not isinstance(digest, str) or not _HASH.fullmatch(digest):
        return None
    return AnchorState(
        seq=seq,
        hash=digest,
        trail=trail if isinstance(trail, str) else None,
        rewound=found.get("rewound") is True,
    )


class AnchorFile:
    """The anchor file, to which heads are published."""

    def __init__(self, path: Path) -> None:
        """Use this file. It is opened for each head: its disk may be mounted later."""
        self._path = path
        self._last: tuple[int, str] | None = None

    def publish(
        self,
        head: ChainHead,
        *,
        file: str | None,
        trail: str | None,
        now: float,
        rewound: bool = False,
    ) -> None:
        """Add a line for this head, if it is new; return when it is on the disk.

        Raises:
            OSError: it could not be written.
        """
        if not head.seq or (head.seq, head.hash) == self._last:
            return
        line = {"seq": head.seq, "hash": head.hash, "file": file, "time": stamp(now)}
        line |= {"trail": trail} | ({"rewound": True} if rewound else {})
        size = self._append(json.dumps(line).encode() + b"\n")
        self._last = head.seq, head.hash
        if size > LONGEST:
            self._shorten()

    def _append(self, line: bytes) -> int:
        """Append a line; return the length of the file before."""
        is_new = not self._path.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        file = open_regular(self._path, flags, mode=MODE, only_name=True)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":  # after a crash, or a full disk
                line = b"\n" + line
            write_all(file, line)
            os.fsync(file)
        finally:
            os.close(file)
        if is_new:
            sync_directory(self._path.parent)
        return size

    def _shorten(self) -> None:
        """Replace the file, in one step, by one with fewer of the older lines."""
        lines = read_bytes(self._path, limit=READ_MOST).splitlines(keepends=True)
        replace_file(self._path, thin_out(lines), mode=MODE)
        sync_directory(self._path.parent)


def thin_out(lines: Sequence[bytes]) -> list[bytes]:
    """Leave out every second of the older lines, but none about a rewound trail."""
    kept = []
    for at, line in enumerate(lines):
        after = lines[at + 1] if at + 1 < len(lines) else b""
        is_turn = b'"rewound"' in line or b'"rewound"' in after
        if at % 2 == 0 or is_turn or at >= len(lines) - NEWEST_KEPT:
            kept.append(line)
    return kept


class Rewind(msgspec.Struct, frozen=True, kw_only=True):
    """How a trail contradicts its anchor."""

    detail: str
    known: AnchorState | None = None
    """The newest head in the anchor; `None` if it cannot be read."""


def find_rewind(path: Path, *, directory: Path) -> Rewind | None:
    """Compare the end of a trail with its anchor; `None` if they agree.

    Raises:
        StartError: the trail cannot be read.
    """
    try:
        history = read_history(path)
    except ValueError as exc:
        return Rewind(detail=f"{path} {exc}")
    if history.is_garbled:
        return Rewind(detail=f"{path} is not an anchor of an audit trail")
    known = history.newest
    if known is None or not known.seq:
        return None
    left = find_end(directory)  # after the anchor: a running proxy writes the trail first
    detail = _find_mismatch(known, path=path, directory=directory, left=left)
    return None if detail is None else Rewind(detail=detail, known=known)


def _find_mismatch(
    known: AnchorState, *, path: Path, directory: Path, left: Recovery
) -> str | None:
    if None not in (known.trail, left.trail) and known.trail != left.trail:
        return f"{path} is the anchor of trail {known.trail}, but {directory} has {left.trail}"
    if known.seq > left.head.seq:
        return f"the trail ends with record {left.head.seq}, but {path} knows record {known.seq}"
    digest = left.head.hash if known.seq == left.head.seq else find_hash(directory, known.seq)
    if digest == known.hash or (digest is None and is_pruned(directory, known.seq)):
        return None
    return f"record {known.seq} is not the one that {path} knows"
