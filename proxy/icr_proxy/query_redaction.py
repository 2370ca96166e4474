"""Redaction of query parameters, in every way a server could read their names; pure.

Servers read names differently: some decode twice, some separate parameters by `;`, some drop blanks
or cut at a NUL, and frameworks read `name[]`, `name[0]` and `name.x` as parts of `name`. A value is
hidden if any of these readings gives a name that must be hidden: too much rather than too little.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HIDDEN = "***"

_READINGS = 4  # as sent, then decoded once, twice and three times
_SEPARATOR = re.compile(rb"[&;?#]")
_EQUALS = re.compile(r"=|%(?:25)*3d", re.IGNORECASE)
_PARTS = re.compile(r"[\[\].\0]")
# PHP reads each of these as "_"; other frameworks take "-" and "_" for the same.
_FOLDED = re.compile(r"[\s._+\[\]-]+")
_PLAIN = re.compile(r"[!-$&-~]*")  # visible ASCII without "%": no escapes
_WORD = re.compile(r"[a-z0-9]*")
_MICROSOFT = re.compile(rb"%u([0-9a-f]{4})", re.IGNORECASE)  # %u0061, which IIS reads as "a"


class QueryRedaction:
    """Hides the values of these parameters; `None` hides the values of all."""

    def __init__(self, names: Iterable[str] | None) -> None:
        """Take the names of the configuration."""
        self._hides_all = names is None
        plain = [reading for name in names or () for reading in _names_in(name)]
        self._words = tuple({_first_word(name) for name in plain})
        self._folded = frozenset(map(_fold, plain))
        self._nested = tuple(path for path in map(_split_nested, plain) if path)

    def __bool__(self) -> bool:
        """Tell whether anything is hidden."""
        return self._hides_all or bool(self._words)

    def __call__(self, query: str) -> str:
        """Return the query with `***` for each hidden value; the rest stays as it is."""
        if not self._hides_all and self._is_harmless(query):
            return query
        return "&".join(map(self._redact, query.split("&")))

    def _is_harmless(self, text: str) -> bool:
        """Tell quickly that it holds no such name: without escapes, names stand as they are."""
        if not self._words:
            return True
        return _PLAIN.fullmatch(text) is not None and not self._has_word(text)

    def _has_word(self, text: str) -> bool:
        lowered = text.lower()
        return any(word in lowered for word in self._words)

    def _redact(self, text: str) -> str:
        """Redact one parameter, or several that only `;` separates.

        Nothing is shown after the first hidden value: to a server that does not separate by `;` it
        is the rest of that value.
        """
        at = 0
        for piece in text.split(";"):
            if self._is_hidden(piece):
                name = _EQUALS.split(piece, maxsplit=1)[0]
                return f"{text[:at]}{name}={HIDDEN}"
            at += len(piece) + 1
        return text

    def _is_hidden(self, piece: str) -> bool:
        if _EQUALS.search(piece) is None:  # a name without a value
            return False
        if self._hides_all:
            return True
        return not self._is_harmless(piece) and any(map(self._is_named, _names_in(piece)))

    def _is_named(self, name: str) -> bool:
        if not self._has_word(name):
            return False
        if _fold(name) in self._folded:
            return True
        path = _split_nested(name)
        return any(
            path[at : at + len(wanted)] == wanted
            for wanted in self._nested
            for at in range(len(path) - len(wanted) + 1)
        )


def readings(text: str) -> Iterator[str]:
    """Return a text as it was sent, and decoded once and more often, as servers may do."""
    return (raw.decode("utf-8", "replace") for raw in _decoded(text))


def _names_in(piece: str) -> Iterator[str]:
    """Return every name that some server might read."""
    for raw in _decoded(piece):
        for part in _SEPARATOR.split(raw):
            yield _plain(part.partition(b"=")[0].decode("utf-8", "replace"))


def _decoded(text: str) -> Iterator[bytes]:
    # In bytes, as servers do: a character may need several escapes.
    raw = text.encode("utf-8", "surrogateescape")
    for _ in range(_READINGS):
        yield raw
        decoded = unquote_to_bytes(_MICROSOFT.sub(_unescaped, raw.replace(b"+", b" ")))
        if decoded == raw:
            return
        raw = decoded


def _unescaped(found: re.Match[bytes]) -> bytes:
    return chr(int(found[1], 16)).encode("utf-8", "replace")


def _first_word(name: str) -> str:
    """Return letters and digits that every spelling of a name has, if none is escaped."""
    found = _WORD.search(name.lstrip("._+[]-"))
    return found[0] if found is not None else ""


def _plain(name: str) -> str:
    """Fold a name: one case, no invisible characters, one kind of blank."""
    if name.isascii() and name.isprintable():
        return name.lower()
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(" " if char.isspace() else char for char in text if _is_kept(char))


def _is_kept(char: str) -> bool:
    return char == "\0" or char.isspace() or unicodedata.category(char)[0] != "C"


def _fold(name: str) -> str:
    return _FOLDED.sub("_", name.partition("\0")[0]).strip("_")


def _split_nested(name: str) -> list[str]:
    """Split a name into the parts that a framework reads as nested: `a[b].c` has three."""
    return [part for part in _PARTS.split(name.replace(" ", "")) if part]
