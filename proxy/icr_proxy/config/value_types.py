"""What a configuration value may be: one small class for each kind of value.

A kind reads raw input (text of a file, a variable or a flag, or a value that was read before) into
the value the program uses, writes it back as people write it, and describes itself as JSON Schema.
`read` raises ValueError with the rest of a sentence that begins with the value.
"""
# ruff: noqa: D102, TRY004 - `Kind` says once what the methods do; readers raise one type

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from icr_proxy.config import units
from icr_proxy.config.secretkinds import KeyHash, KeyText, SecretText, StoreUrl
from icr_proxy.redaction import QUOTED, in_quotes
from icr_proxy.showing import shown

if TYPE_CHECKING:
    from collections.abc import Callable

Schema: TypeAlias = dict[str, Any]

_YEAR = 366 * 24 * 3600.0  # longer is a slip, and timers of event loops overflow somewhere beyond
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class Kind(Protocol):
    """What reading, checking and documenting need to know about a value."""

    @property
    def example(self) -> str:
        """One value that is fine, as people write it."""

    def read(self, raw: object) -> Any:
        """Turn raw input into the value; raise ValueError with the rule that it breaks."""

    def write(self, value: Any) -> Any:
        """Turn the value into what stands in a file."""

    def schema(self) -> Schema:
        """Describe what may stand in a file."""


def _text(raw: object, what: str) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"is not {what}")
    return raw


class Text(msgspec.Struct, frozen=True):
    """Text of a given shape; `parse` may refuse more, and gives the canonical spelling."""

    what: str
    pattern: str
    example: str
    parse: Callable[[str], str] = str

    def read(self, raw: object) -> str:
        text = _text(raw, self.what)
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"is not {self.what}, as in {self.example}")
        return self.parse(text)

    def write(self, value: str) -> str:
        return value

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


class PathText(msgspec.Struct, frozen=True):
    """The path of a file; whether it is there is for its reader to find out."""

    example: str = "/etc/icr-proxy/file.pem"

    def read(self, raw: object) -> Path:
        if isinstance(raw, Path):
            return raw
        text = _text(raw, "a path")
        if "\n" in text or "PRIVATE KEY" in text:
            raise ValueError("is no path but the content of a file; write where the file is")
        if "\0" in text:
            raise ValueError("is not a path")
        if text.startswith("~"):
            raise ValueError("is not a whole path; ~ stands for nobody's home here")
        return Path(text)

    def write(self, value: Path) -> str:
        return str(value)

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


class SecretPath(PathText, frozen=True):
    """The path of a file that holds a secret, or of a directory of such files."""


class Switch(msgspec.Struct, frozen=True):
    """True or false."""

    example: str = "true"

    def read(self, raw: object) -> bool:
        if isinstance(raw, bool):
            return raw
        word = raw.lower() if isinstance(raw, str) else ""
        if word not in _TRUE | _FALSE:
            raise ValueError("is neither true nor false")
        return word in _TRUE

    def write(self, value: bool) -> bool:  # noqa: FBT001 - a kind has one value
        return value

    def schema(self) -> Schema:
        return {"type": "boolean"}


class Choice(msgspec.Struct, frozen=True):
    """One of a few words, which are in small letters; any case is read."""

    words: tuple[str, ...]

    @property
    def example(self) -> str:
        return self.words[0]

    def read(self, raw: object) -> str:
        word = raw.strip().lower() if isinstance(raw, str) else ""
        if word not in self.words:
            raise ValueError(f"is none of {', '.join(self.words)}")
        return word

    def write(self, value: str) -> str:
        return value

    def schema(self) -> Schema:
        # As a pattern, too: JSON Schema has no flag for any case, and the chart's is Go's.
        patterns = ("".join(f"[{each.upper()}{each}]" for each in word) for word in self.words)
        return {
            "anyOf": [
                {"enum": list(self.words)},
                {"type": "string", "pattern": f"^(?:{'|'.join(patterns)})$"},
            ]
        }


class Count(msgspec.Struct, frozen=True):
    """A whole number between two bounds."""

    low: int
    high: int
    example: str = "100"

    def read(self, raw: object) -> int:
        number = raw
        if isinstance(raw, str) and re.fullmatch(r"0|[1-9][0-9]{0,17}", raw):
            number = int(raw)
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError("is not a whole number")
        if not self.low <= number <= self.high:
            raise ValueError(f"is not between {self.low} and {self.high}")
        return number

    def write(self, value: int) -> int:
        return value

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


class Share(msgspec.Struct, frozen=True):
    """A part of a whole, from 0 to 1."""

    example: str = "0.1"

    def read(self, raw: object) -> float:
        number = raw
        if isinstance(raw, str) and re.fullmatch(r"[0-9]{1,18}(?:\.[0-9]{1,18})?", raw):
            number = float(raw)
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise ValueError("is not a number")
        if not 0 <= number <= 1:
            raise ValueError("is not between 0 and 1")
        return float(number)

    def write(self, value: float) -> float:
        return value

    def schema(self) -> Schema:
        return {"type": "number", "minimum": 0, "maximum": 1}


class Duration(msgspec.Struct, frozen=True):
    """A length of time, in seconds; `zero` says whether none at all is one."""

    zero: bool = False
    example: str = "10s"

    def read(self, raw: object) -> float:
        try:
            seconds = units.read_duration(raw)
        except ValueError:
            raise ValueError("is not a duration; write seconds or 500ms, 10s, 5m, 2h") from None
        if seconds > _YEAR:
            raise ValueError("is longer than a year")
        if not seconds and not self.zero:
            raise ValueError("is no time at all; it must be more than 0")
        return seconds

    def write(self, value: float) -> str:
        return units.write_duration(value)

    def schema(self) -> Schema:
        least = "minimum" if self.zero else "exclusiveMinimum"
        return {
            "anyOf": [
                {"type": "number", least: 0, "maximum": _YEAR},
                {"type": "string", "pattern": f"^{units.DURATION_PATTERN}$"},
            ]
        }


class Size(msgspec.Struct, frozen=True):
    """A number of bytes, at least `low`."""

    low: int = 1
    example: str = "64KiB"

    def read(self, raw: object) -> int:
        try:
            size = units.read_size(raw)
        except ValueError:
            raise ValueError("is not a size; write bytes or 64KiB, 1MiB, 2GiB") from None
        if size < self.low:
            raise ValueError(f"is less than {units.write_size(self.low)}")
        return size

    def write(self, value: int) -> str:
        return units.write_size(value)

    def schema(self) -> Schema:
        return {
            "anyOf": [
                {"type": "integer", "minimum": self.low},
                {"type": "string", "pattern": f"^{units.SIZE_PATTERN}$"},
            ]
        }


class ListOf(msgspec.Struct, frozen=True):
    """Several values of one kind."""

    item: Kind

    @property
    def example(self) -> str:
        return f"[{self.item.example}]"

    def read(self, raw: object) -> tuple[Any, ...]:
        if not isinstance(raw, list | tuple):
            raise ValueError("is not a list; write [one, another]")
        return tuple(self.item.read(each) for each in raw)

    def write(self, value: tuple[Any, ...]) -> list[Any]:
        return [self.item.write(each) for each in value]

    def schema(self) -> Schema:
        return {"type": ["array", "null"], "items": self.item.schema()}


def take(kind: Kind, raw: object) -> tuple[Any, list[tuple[str, str]]]:
    """Read a value, and instead of raising list what is wrong: where inside it, and a sentence."""
    if isinstance(raw, str) and not raw.strip():
        return None, [("", "is empty; give it a value or leave it out")]
    if isinstance(raw, str) and in_quotes(raw.strip()) and not isinstance(kind, KeyText):
        return None, [("", f"{quoted(kind, raw)} {QUOTED}")]
    if isinstance(kind, ListOf) and isinstance(raw, list | tuple):
        taken = [take(kind.item, each) for each in raw]
        wrong = [(f"[{at}]", text) for at, (_, found) in enumerate(taken) for _, text in found]
        return tuple(value for value, _ in taken), wrong
    try:
        return kind.read(raw), []
    except ValueError as exc:
        return None, [("", f"{quoted(kind, raw)} {exc}")]


def quoted(kind: Kind, raw: object) -> str:
    """Quote a value as its kind allows."""
    inner = kind.item if isinstance(kind, ListOf) else kind
    return "***" if isinstance(inner, SecretText | StoreUrl | KeyHash) else shown(raw)
