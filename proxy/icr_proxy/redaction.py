"""Secrets that hide themselves, and redaction of values for logs and messages.

Forgetting is safe: `repr`, `str`, f-strings, logs and pickles of a `Secret` never hold its text.
Redaction hides too much rather than too little: its output ends up in tickets and chats.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import TYPE_CHECKING, NoReturn

from icr_proxy.errors import StartError
from icr_proxy.files import PIPE_SECONDS, read_text, signature
from icr_proxy.query_redaction import readings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUOTES = "\"'"
QUOTED = (
    "is in quotes, and they would be part of the value: docker --env-file and Kubernetes keep them;"
    " remove them"
)


class Secret:
    """A secret text; only `reveal()` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text. Reviewers search for calls of this method."""
        return self._text

    @property
    def fingerprint(self) -> str:
        """First 12 hex digits of the SHA-256: the registry logs them, too; useless to a thief."""
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
    """Parse a secret, as a file or a variable holds it.

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
    """Tell whether a text is in quotes, which a shell would have removed."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES


HIDDEN = "… (masked)"

# Names of headers and parameters whose values are credentials.
SENSITIVE = re.compile(
    r"auth|cookie|token|secret|passw|credential|session|signature|api[-_]?key|private[-_]?key",
    re.IGNORECASE,
)
# Values that are credentials under any name: tokens of the API, callers' keys (`icrp_…`),
# JWTs, private keys (also in base64).
CREDENTIAL = re.compile(r"cr[a-z]_|eyJ|PRIVATE KEY|LS0tLS1")
SCHEME = re.compile(r"(?:Basic|Bearer|Digest|Negotiate)(?= )", re.IGNORECASE)
PREFIX = re.compile(r"cr[a-z]_")
QUERY_VALUE = re.compile(r"([?&;])([^=&;]*?)(=|%(?:25)*3d)([^&;]*)", re.IGNORECASE)
USER_PART = re.compile(r"//[^/?#]*@")


def masked_value(name: str, value: str) -> str:
    """Return a header's value; of a credential only its kind."""
    if not SENSITIVE.search(name) and not CREDENTIAL.search(value):
        return value
    scheme = SCHEME.match(value)
    if scheme is None:
        return HIDDEN.strip()
    prefix = PREFIX.match(value[scheme.end() + 1 :])
    return f"{scheme[0]} {prefix[0] if prefix else ''}{HIDDEN}"


def masked_target(target: str) -> str:
    """Return a target or URL without user, password and what looks like a credential."""
    target = USER_PART.sub("//***@", target)
    path, mark, query = target.partition("?")
    if CREDENTIAL.search(path):
        path = re.sub(r"[^/]*(?:cr[a-z]_|eyJ)[^/]*", "***", path)
    return path + QUERY_VALUE.sub(_masked_query_value, mark + query)


def _masked_query_value(found: re.Match[str]) -> str:
    separator, name, equals, value = found.groups()
    if any(map(SENSITIVE.search, readings(name))) or any(map(CREDENTIAL.search, readings(value))):
        value = "***"
    return f"{separator}{name}{equals}{value}"


SECRET_MOST = 4096  # bytes; a longer file is another file
NEEDED = "the text of one secret is needed"


class SecretFile:
    """A secret in a file, read anew when the file changes; a file with an error changes nothing."""

    def __init__(
        self, path: Path, *, key: str, rejected: Callable[[StartError], None] = lambda _error: None
    ) -> None:
        """Read the file; `key` is its configuration key, for error messages.

        Raises:
            StartError: it cannot be used.
        """
        self._path = path
        self._key = key
        self._rejected = rejected
        self._seen = signature(path)  # before the file is read, so that no change is missed
        self._secret = read_secret(path, key=key)

    def __call__(self) -> Secret:
        """Return the secret as it is now."""
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
        return parse_secret(read_text(path, limit=SECRET_MOST, patience=patience))
    except ValueError as exc:
        raise StartError(f"{key}: {path} {exc}; {NEEDED}") from None


def printable(text: str, *, instead: str = "") -> str:
    """Replace the characters that a terminal would obey or could not show."""
    return "".join(char if char.isprintable() else instead for char in text)


_QUOTE_MOST = 80


def quote_value(raw: object) -> str:
    """Quote a refused value for an error message."""
    if isinstance(raw, str):
        return _quote_text(raw)
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, int | float):
        return str(raw)
    if isinstance(raw, dict):
        return "a mapping"
    if isinstance(raw, list | tuple):
        return "a list"
    return "nothing" if raw is None else f"a {type(raw).__name__}"


def _quote_text(raw: str) -> str:
    if "\n" in raw or CREDENTIAL.search(raw):
        return "***"
    safe = re.sub(r"[?#].*", "?***", re.sub(r".*@", "***@", raw))
    if len(safe) > _QUOTE_MOST:
        safe = safe[:_QUOTE_MOST] + "..."
    return json.dumps(safe)  # escapes characters that break the line or change its direction
