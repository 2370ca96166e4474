"""Files: signatures for watching, bounded reading, decoding, atomic writing.

Editors and shells on Windows write a byte order mark or UTF-16, so both are read. A named pipe
without a writer must not stop the start for ever.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import errno
import os
import secrets
import select
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

Signature = tuple[int, ...]

PIPE_SECONDS = 10.0  # at start, for the writer of a pipe, as in `--private-key-file <(…)`
BINARY = "is not UTF-8 text"
PRIVATE_MODE, PUBLIC_MODE = 0o600, 0o644
# Not blocking: opening a pipe would otherwise wait for its other end for ever.
_SAFE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# The mark of UTF-32 begins with the mark of UTF-16, so UTF-32 comes first.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def signature(path: Path) -> Signature | None:
    """Return a value that changes when the file changes; `None` if it is no regular file.

    `stat` follows symbolic links, so a swap by Kubernetes in a mounted secret is seen.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return signature_of(found) if stat.S_ISREG(found.st_mode) else None


def signature_of(found: os.stat_result) -> Signature:
    """Return the signature. It has the change time, because `cp -p` keeps the modification time."""
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def read_bytes(path: Path, *, limit: int, patience: float = 0.0) -> bytes:
    """Read a file of at most `limit` bytes.

    With `patience`, a pipe or a device is read, too; its writer may be silent for so many seconds.

    Raises:
        ValueError: with the rest of a sentence that begins with the path.
    """
    try:
        raw = read_at_most(path, limit + 1, patience=patience)
    except OSError as exc:
        raise ValueError(f"cannot be read: {exc.strerror}") from None
    if len(raw) > limit:
        size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
        raise ValueError(f"is over {size}")
    return raw


def read_text(path: Path, *, limit: int, patience: float = 0.0, binary: str = BINARY) -> str:
    """Read a text file as `read_bytes` does, and decode it."""
    return decode(read_bytes(path, limit=limit, patience=patience), binary=binary)


def read_pem(path: Path, *, limit: int, patience: float = 0.0) -> str:
    """Read a file with PEM, or base64 of PEM; comments around it may be in any encoding."""
    raw = read_bytes(path, limit=limit, patience=patience)
    return pem_of(decode(raw) if has_mark(raw) else raw.decode("latin-1"))


def has_mark(raw: bytes) -> bool:
    """Tell whether a file begins with a byte order mark."""
    return raw.startswith(tuple(mark for mark, _ in MARKS))


def decode(raw: bytes, *, binary: str = BINARY) -> str:
    """Decode UTF-8, or UTF-16 and UTF-32 with a byte order mark; the mark is removed.

    Raises:
        ValueError: it is not text; the rest of a sentence.
    """
    encoding = next((name for mark, name in MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(binary) from None
    if "\0" in text:
        raise ValueError("holds NUL characters; save it as UTF-8 text")
    return text


def pem_of(text: str) -> str:
    r"""Return the PEM text if `text` is base64 of PEM, else `text` itself.

    People put the base64 from a Kubernetes Secret's `data` into a file or a variable. Line breaks
    in it may be escaped (`\n`).
    """
    if "-----BEGIN" in text:
        return text
    joined = "".join(text.replace("\\n", "").replace("\\r", "").lstrip("\ufeff").split())
    try:
        found = decode(base64.b64decode(joined, validate=True))
    except (ValueError, binascii.Error):
        return text
    return found if "-----BEGIN" in found else text


def open_regular(path: Path, flags: int, *, mode: int = 0o600, only_name: bool = False) -> int:
    """Open a regular file; refuse a link, a pipe or a device in its place.

    With `only_name`, it also refuses a file with other names. Whoever can make hard links could
    otherwise make the proxy write into any of its own files.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    return _open(path, flags | os.O_NOFOLLOW, mode=mode, only_name=only_name)


def open_to_read(path: Path) -> BinaryIO:
    """Open a regular file for reading, also through a link; a pipe or a device is refused.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    return os.fdopen(_open(path, os.O_RDONLY), "rb")


def _open(path: Path, flags: int, *, mode: int = 0o600, only_name: bool = False) -> int:
    descriptor = os.open(path, flags | _SAFE, mode)
    try:
        _check_regular(os.fstat(descriptor), path, only_name=only_name)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(found: os.stat_result, path: Path, *, only_name: bool = False) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    if only_name and found.st_nlink > 1:
        raise OSError(errno.EMLINK, "The file has other names (hard links)", str(path))


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all bytes, even if each call writes only a few."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def check_replaceable(path: Path) -> None:
    """Check that a file may be replaced: a file or a link to one, never a device or a pipe.

    As root, the proxy could otherwise replace `/dev/null` or `/dev/stdout` for the whole machine.

    Raises:
        OSError: something else is there.
    """
    with suppress(FileNotFoundError):
        _check_regular(path.stat(), path)


def replace_file(path: Path, pieces: Iterable[bytes], *, mode: int, is_trial: bool = False) -> None:
    """Write a file, whole or not at all; it replaces a file or a link at the path.

    The draft has a random name, so nobody can put a link in its way, and never a wider mode than
    `mode`. A trial does everything but the last step.

    Raises:
        OSError: it cannot be written; nothing has changed.
    """
    check_replaceable(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = open_regular(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=mode)
    try:
        try:
            for piece in pieces:
                write_all(file, piece)
            os.fsync(file)
        finally:
            os.close(file)
        if not is_trial:
            draft.replace(path)
    finally:
        with suppress(OSError):  # as a rule it has become the file
            draft.unlink()


def write_output(path: Path, pieces: Iterable[bytes]) -> None:
    """Write the output of a command; into a pipe or a device without replacing it.

    Raises:
        OSError: it cannot be written, or the path is a link to a file.
    """
    mode, is_file = 0o666, True
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        is_file = stat.S_ISREG(path.stat().st_mode)
    if stat.S_ISLNK(mode) and is_file:
        raise OSError(errno.ELOOP, "It is a symbolic link; name the file itself", str(path))
    if is_file:
        replace_file(path, pieces, mode=stat.S_IMODE(mode))
        return
    with path.open("wb") as file:
        file.writelines(pieces)


def read_at_most(path: Path, size: int, *, patience: float) -> bytes:
    """Read the beginning of a file; for `patience` see `read_bytes`.

    Raises:
        OSError: it cannot be read, or is a directory, or a pipe without `patience`.
    """
    descriptor = os.open(path, os.O_RDONLY | _SAFE)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode) or not patience:
            _check_regular(found, path)
        return _read_all(descriptor, size, patience=patience)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, size: int, *, patience: float) -> bytes:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    found = bytearray()
    while len(found) < size:
        if not poller.poll(patience * 1000):
            raise OSError(errno.ETIMEDOUT, f"nobody wrote into the pipe for {patience:g} s")
        piece = os.read(descriptor, size - len(found))
        if not piece:
            break
        found += piece
    return bytes(found)


def write_file(path: Path, data: bytes, *, mode: int, replace: bool) -> None:
    """Write a file, whole or not at all, of which nobody reads more than `mode` allows.

    Raises:
        FileExistsError: it is there, and may not be replaced.
        OSError: it cannot be written.
    """
    if replace:
        replace_file(path, [data], mode=mode)
        return
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise
