"""A secret in a file: read at start, and again when the file has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import StartError
from proxy.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST = 4096  # bytes; whatever is longer is another file
NEEDED = "the text of one secret is needed"


class SecretFile:
    """The secret as it was last read; a file that has become unusable changes nothing, loudly."""

    def __init__(
        self, path: Path, *, key: str, rejected: Callable[[StartError], None] = lambda _error: None
    ) -> None:
        """Read the file that the configuration's `key` names.

        Raises:
            StartError: it cannot be used; the sentence says why.
        """
        self._path = path
        self._key = key
        self._rejected = rejected
        self._seen = self._look()  # before it is read, so that no change is missed
        self._secret = read_secret(path, key=key)

    def __call__(self) -> Secret:
        """Give the secret."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._secret = read_secret(self._path, key=self._key)
            except StartError as error:
                self._rejected(error)
        return self._secret

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def read_secret(path: Path, *, key: str) -> Secret:
    """Read a secret; one line break at its end is not part of it.

    Raises:
        StartError: the file cannot be read, is empty, too long, or not text.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST + 1)
    except OSError as exc:
        raise StartError(f"{key}: {path} cannot be read: {exc.strerror}; {NEEDED}") from None
    if len(raw) > MOST:
        raise StartError(f"{key}: {path} is over {MOST // 1024} KiB; {NEEDED}")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise StartError(f"{key}: {path} is not UTF-8 text; {NEEDED}") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise StartError(f"{key}: {path} is empty; {NEEDED}")
    return Secret(text)
