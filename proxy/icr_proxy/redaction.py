"""A string that does not show itself.

Forgetting is safe: `repr`, `str`, f-strings, logs and pickles of a `Secret` never hold its text.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn

QUOTES = "\"'"
QUOTED = (
    "is in quotes, and they would be part of the value: docker --env-file and Kubernetes keep them;"
    " remove them"
)


class Secret:
    """Text that leaves only through `reveal()`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Give the text itself; the call is what a reviewer searches for."""
        return self._text

    @property
    def fingerprint(self) -> str:
        """First 12 hex digits of the SHA-256: joins with the registry's log, useless to a thief."""
        return hashlib.sha256(self._bytes()).hexdigest()[:12]

    def _bytes(self) -> bytes:
        # An environment variable that is not UTF-8 arrives with surrogates.
        return self._text.encode("utf-8", "surrogatepass")

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._bytes(), other._bytes())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


def parse_secret(text: str) -> Secret:
    """Read a secret of one text, as a file or a variable holds it.

    A byte order mark at the beginning and one line break at the end are not part of it.

    Raises:
        ValueError: with the rest of a sentence that must not show the text.
    """
    text = text.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise ValueError("is empty")
    if in_quotes(text.strip()):
        raise ValueError(QUOTED)
    if text != text.strip():
        raise ValueError("begins or ends with a blank or an empty line; remove it")
    if not text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        raise ValueError("holds characters that cannot be printed, or is not UTF-8 text")
    return Secret(text)


def in_quotes(text: str) -> bool:
    """Tell whether a whole text stands in quotes, which a shell would have removed."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES
