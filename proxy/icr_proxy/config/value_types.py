"""Types of configuration values: text, numbers, durations, sizes, secrets.

Refused values of secret kinds are never quoted.

Inside, a duration is a float in seconds and a size an int in bytes; only here are they text.
Units are few and exact on purpose: `m` is minutes and never months, `KiB` is 1024 bytes, and `KB`,
over whose meaning people disagree, is refused.

A kind reads raw input (text of a file, a variable or a flag, or a value that was read before) into
the value the program uses, writes it back as people write it, and describes itself as JSON Schema.
`read` raises ValueError with the rest of a sentence that begins with the value.
"""

# ruff: noqa: D102, TRY004 - `ValueType` says once what the methods do; readers raise one type

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from icr_proxy.net.addresses import REDIS_EXAMPLE, read_store_url
from icr_proxy.policy.caller_auth import HASH, hash_of
from icr_proxy.redaction import QUOTED, Secret, in_quotes, parse_secret, quote_value

if TYPE_CHECKING:
    from collections.abc import Callable

Schema: TypeAlias = dict[str, Any]

_KEY_HASH = f"{HASH}[0-9a-fA-F]{{64}}"
_HASH_SHOWN = len(HASH) + 8
# What `echo "$KEY" | sha256sum` gives when the variable is not set, or with -n.
_OF_NOTHING = frozenset(hash_of(text) for text in ("", "\n", "\r\n"))


class SecretText(msgspec.Struct, frozen=True):
    """Text that is never shown."""

    example: str = "***"

    def read(self, raw: object) -> Secret:
        if isinstance(raw, Secret):
            return raw
        if not isinstance(raw, str):
            raise ValueError("is not text")
        return self.parse(raw)

    def parse(self, text: str) -> Secret:
        return parse_secret(text)

    def write(self, value: Secret) -> str:  # noqa: ARG002 - that is the point
        return "***"

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


class KeyText(SecretText, frozen=True):
    """A private key as text; `keys` finds the PEM in it, in quotes as well."""

    def parse(self, text: str) -> Secret:
        return Secret(text)


class StoreUrl(msgspec.Struct, frozen=True):
    """Where Redis is; user and password in it are never shown."""

    example: str = REDIS_EXAMPLE

    def read(self, raw: object) -> Secret:
        if isinstance(raw, Secret):
            raw = raw.reveal()
        if not isinstance(raw, str):
            raise ValueError("is not text")
        secret = parse_secret(raw)
        read_store_url(secret.reveal())
        return secret

    def write(self, value: Secret) -> str:
        return re.sub(r"//[^/]*@", "//***@", value.reveal())

    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^(?:(?:rediss?|unix)://[!-~]+)$"}


class KeyHash(msgspec.Struct, frozen=True):
    """The hash of a caller's key; what else stands in its place may be the key, and is not shown.

    The hash itself opens nothing, but whoever has a list of them can tell a key that he has found.
    """

    example: str = "sha256:5a3e4c2b1d0f69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"

    def read(self, raw: object) -> str:
        text = raw if isinstance(raw, str) else ""
        if not re.fullmatch(_KEY_HASH, text):
            raise ValueError(
                "is not sha256: and 64 hexadecimal digits; write the hash of a key, never the key"
                " (icr-proxy keys caller makes both)"
            )
        if text.lower() in _OF_NOTHING:
            raise ValueError("is the hash of no key but of an empty line")
        return text.lower()

    def write(self, value: str) -> str:
        return f"{value[:_HASH_SHOWN]}…"

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{_KEY_HASH})$"}


DURATION_PATTERN = r"(0|[1-9][0-9]*)(\.[0-9]+)?(ms|s|m|h)?"
SIZE_PATTERN = r"(0|[1-9][0-9]*)(B|KiB|MiB|GiB)?"

# No leading zeros: YAML 1.1 reads 010 as eight, people read ten.
_DURATION = re.compile(DURATION_PATTERN)
_SIZE = re.compile(SIZE_PATTERN)

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_BYTES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

_DIGITS = 20  # more is a slip of the keyboard; also bounds the work of `int`


def read_duration(raw: object) -> float:
    """Give seconds; raise ValueError for everything that is not a duration."""
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return _seconds(float(raw))
    match = _DURATION.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if match is None or len(match[0]) > _DIGITS:
        raise ValueError("not a duration")
    number, unit = float(match[1] + (match[2] or "")), match[3] or "s"
    # Dividing is exact where multiplying by 0.001 is not.
    return number / 1000 if unit == "ms" else number * _SECONDS[unit]


def _seconds(number: float) -> float:
    if not math.isfinite(number) or number < 0:
        raise ValueError("not a length of time")
    return number


def write_duration(seconds: float) -> str:
    """Write seconds the short way that `read_duration` understands, exact to the nanosecond."""
    if seconds and seconds % 3600 == 0:
        return f"{seconds / 3600:.0f}h"
    if seconds and seconds % 60 == 0:
        return f"{seconds / 60:.0f}m"
    milliseconds = round(seconds * 1000)
    if seconds < 1 and milliseconds and milliseconds / 1000 == seconds:
        return f"{milliseconds}ms"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def read_size(raw: object) -> int:
    """Give bytes; raise ValueError for everything that is not a size."""
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    match = _SIZE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if match is None or len(match[0]) > _DIGITS:
        raise ValueError("not a size")
    return int(match[1]) * _BYTES[match[2] or ""]


def write_size(size: int) -> str:
    """Write bytes in the largest unit that says them exactly."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


_YEAR = 366 * 24 * 3600.0  # longer is a slip, and timers of event loops overflow somewhere beyond
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class ValueType(Protocol):
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


class Boolean(msgspec.Struct, frozen=True):
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
            seconds = read_duration(raw)
        except ValueError:
            raise ValueError("is not a duration; write seconds or 500ms, 10s, 5m, 2h") from None
        if seconds > _YEAR:
            raise ValueError("is longer than a year")
        if not seconds and not self.zero:
            raise ValueError("is no time at all; it must be more than 0")
        return seconds

    def write(self, value: float) -> str:
        return write_duration(value)

    def schema(self) -> Schema:
        least = "minimum" if self.zero else "exclusiveMinimum"
        return {
            "anyOf": [
                {"type": "number", least: 0, "maximum": _YEAR},
                {"type": "string", "pattern": f"^{DURATION_PATTERN}$"},
            ]
        }


class Size(msgspec.Struct, frozen=True):
    """A number of bytes, at least `low`."""

    low: int = 1
    example: str = "64KiB"

    def read(self, raw: object) -> int:
        try:
            size = read_size(raw)
        except ValueError:
            raise ValueError("is not a size; write bytes or 64KiB, 1MiB, 2GiB") from None
        if size < self.low:
            raise ValueError(f"is less than {write_size(self.low)}")
        return size

    def write(self, value: int) -> str:
        return write_size(value)

    def schema(self) -> Schema:
        return {
            "anyOf": [
                {"type": "integer", "minimum": self.low},
                {"type": "string", "pattern": f"^{SIZE_PATTERN}$"},
            ]
        }


class ListOf(msgspec.Struct, frozen=True):
    """Several values of one kind."""

    item: ValueType

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


def parse_value(kind: ValueType, raw: object) -> tuple[Any, list[tuple[str, str]]]:
    """Read a value, and instead of raising list what is wrong: where inside it, and a sentence."""
    if isinstance(raw, str) and not raw.strip():
        return None, [("", "is empty; give it a value or leave it out")]
    if isinstance(raw, str) and in_quotes(raw.strip()) and not isinstance(kind, KeyText):
        return None, [("", f"{quoted(kind, raw)} {QUOTED}")]
    if isinstance(kind, ListOf) and isinstance(raw, list | tuple):
        taken = [parse_value(kind.item, each) for each in raw]
        wrong = [(f"[{at}]", text) for at, (_, found) in enumerate(taken) for _, text in found]
        return tuple(value for value, _ in taken), wrong
    try:
        return kind.read(raw), []
    except ValueError as exc:
        return None, [("", f"{quoted(kind, raw)} {exc}")]


def quoted(kind: ValueType, raw: object) -> str:
    """Quote a value as its kind allows."""
    inner = kind.item if isinstance(kind, ListOf) else kind
    return "***" if isinstance(inner, SecretText | StoreUrl | KeyHash) else quote_value(raw)
