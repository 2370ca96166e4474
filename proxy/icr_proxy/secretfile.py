"""A secret in a file: read at start, and again when the file has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.errors import StartError
from icr_proxy.files import PIPE_SECONDS, read_text, signature
from icr_proxy.redaction import parse_secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from icr_proxy.redaction import Secret

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
        self._seen = signature(path)  # before it is read, so that no change is missed
        self._secret = read_secret(path, key=key)

    def __call__(self) -> Secret:
        """Give the secret."""
        seen = signature(self._path)
        if seen != self._seen:
            self._seen = seen
            try:
                self._secret = read_secret(self._path, key=self._key, patience=0)
            except StartError as error:
                self._rejected(error)
        return self._secret


def read_secret(path: Path, *, key: str, patience: float = PIPE_SECONDS) -> Secret:
    """Read a secret; a byte order mark and one line break at its end are not part of it.

    Raises:
        StartError: the file cannot be read, is empty, too long, in quotes, or not text.
    """
    try:
        return parse_secret(read_text(path, limit=MOST, patience=patience))
    except ValueError as exc:
        raise StartError(f"{key}: {path} {exc}; {NEEDED}") from None
