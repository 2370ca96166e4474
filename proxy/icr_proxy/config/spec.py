"""What is known about one configuration key, and how a section checks itself.

A `KeySpec` stands beside the field it describes (`config.py`). Reading, environment names, the JSON
Schema, the table of all keys and the test of the example file are all derived from these, so a new
key is one line there and nothing elsewhere.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, get_args, get_origin

import msgspec

from icr_proxy.config.value_types import parse_value, quoted
from icr_proxy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from icr_proxy.config.value_types import ValueType

PREFIX = "ICR_PROXY_"

_INDEX = re.compile(r"0|[1-9][0-9]?")

Path: TypeAlias = tuple[str, ...]  # as in ("listeners", "0", "bind")


@dataclass(frozen=True, slots=True)
class KeySpec:
    """The specification of one configuration key: its type, its meaning."""

    kind: ValueType
    doc: str
    _: KW_ONLY
    live: bool = False  # takes effect on reload, without a restart
    flag: str | None = None  # its everyday command-line flag
    example: str | None = None  # if the kind's own example is not telling


class CrossFieldRule(msgspec.Struct, frozen=True):
    """A rule between several keys of one section.

    `broken` gets their values in order and gives what is wrong, or None; the first key is the one
    the complaint is about.
    """

    keys: tuple[str, ...]
    broken: Callable[..., str | None]


class FieldInfo(msgspec.Struct, frozen=True):
    """One field of a section: a `key`, or else a `section` of its own, single or a list."""

    name: str
    key: KeySpec | None
    section: Any  # the dataclass, or None
    many: bool
    default: Any
    required: bool

    @property
    def optional(self) -> bool:
        """Whether leaving it empty means something."""
        return self.default is None


def parts(section: Any) -> Mapping[str, FieldInfo]:
    """List the fields of a section (a dataclass) by name, in their order."""
    return _parts(section)


@cache
def _parts(section: Any) -> Mapping[str, FieldInfo]:
    keys = getattr(section, "specs", {})
    return {field.name: _part(field, keys.get(field.name)) for field in dataclasses.fields(section)}


def _part(field: dataclasses.Field[Any], key: KeySpec | None) -> FieldInfo:
    key = key or next(iter(getattr(field.type, "__metadata__", ())), None)
    return FieldInfo(
        name=field.name,
        key=key,
        section=None if key else _section(field.type),
        many=not key and get_origin(field.type) is tuple,
        default=_default(field),
        required=_default(field) is dataclasses.MISSING,
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _section(annotation: Any) -> Any:
    """Find the section class in `S`, `S | None` or `tuple[S, ...]`."""
    choices = get_args(annotation) or (annotation,)
    return next(each for each in choices if dataclasses.is_dataclass(each))


def leaves(section: Any, path: Path = ()) -> Iterator[tuple[Path, FieldInfo, KeySpec]]:
    """Walk all keys in their order; of a list of sections, the first one stands for all."""
    for part in parts(section).values():
        here = (*path, part.name, "0") if part.many else (*path, part.name)
        if part.key:
            yield here, part, part.key
        else:
            yield from leaves(part.section, here)


def lookup_key(section: Any, path: Path) -> tuple[FieldInfo, KeySpec] | None:
    """Find the key that a path leads to."""
    first = path[:1]
    part = parts(section).get(first[0]) if first else None
    if part is None:
        return None
    rest = path[1:]
    if part.key:
        return None if rest else (part, part.key)
    if not part.many:
        return lookup_key(part.section, rest)
    return lookup_key(part.section, rest[1:]) if rest and _INDEX.fullmatch(rest[0]) else None


# -- names ----------------------------------------------------------------------------------------


def dotted(path: Path) -> str:
    """Write a path as errors show it: `listeners[0].bind`."""
    text = "".join(f"[{step}]" if step.isdecimal() else f".{step}" for step in path)
    return text.removeprefix(".")


def variable(path: Path) -> str:
    """Name the environment variable of a path."""
    return PREFIX + "__".join(path).upper()


# -- soundness ------------------------------------------------------------------------------------


def check(section: Any) -> None:
    """Refuse an instance whose values are not what reading would have given.

    A value is sound if reading it once more gives itself: so text that was never read, a wrong
    type and a broken rule are all found, by the same code that reads the file.
    """
    shape: Any = type(section)
    values = {name: getattr(section, name) for name in parts(shape)}
    wrong = [text for name, part in parts(shape).items() for text in _unsound(part, values[name])]
    if not wrong:
        wrong = [f"{rule.keys[0]}: {text}" for rule, text in broken_rules(shape, values)]
    if wrong:
        raise ConfigError(tuple(f"{shape.__name__}.{each}" for each in wrong))


def _unsound(part: FieldInfo, value: Any) -> list[str]:
    if part.key is None or (value is None and part.optional):
        return []
    again, complaints = parse_value(part.key.kind, value)
    if not complaints and again != value:
        quote = quoted(part.key.kind, value)
        complaints = [("", f"{quote} is not as reading it would have left it")]
    return [f"{part.name}{at}: {text}" for at, text in complaints]


def broken_rules(section: Any, values: Mapping[str, Any]) -> list[tuple[CrossFieldRule, str]]:
    """Apply those rules of a section whose keys all have a value here."""
    rules: tuple[CrossFieldRule, ...] = getattr(section, "cross_field_rules", ())
    ready = (rule for rule in rules if all(key in values for key in rule.keys))
    found = ((rule, rule.broken(*(values[key] for key in rule.keys))) for rule in ready)
    return [(rule, text) for rule, text in found if text]
