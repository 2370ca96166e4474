"""The configuration described: as JSON Schema, as a table for people, as it is right now.

Only `icr-proxy check` and an open console need this; running does not import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from icr_proxy.config.models import Config
from icr_proxy.config.spec import FieldInfo, KeySpec, Path, dotted, leaves, parts, variable
from icr_proxy.config.value_types import ListOf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from icr_proxy.config.value_types import Schema, ValueType

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
NOT_SET = "not set"


# -- JSON Schema ----------------------------------------------------------------------------------


def json_schema() -> Schema:
    """Describe the configuration file as JSON Schema 2020-12."""
    return {"$schema": _DIALECT, "title": "icr-proxy.yaml", **_section_schema(Config)}


def _section_schema(section: Any, *, may_be_empty: bool = False) -> Schema:
    """Describe a section; `app.id` may come from elsewhere, so that nothing is required here."""
    return {
        "type": ["object", "null"] if may_be_empty else "object",
        "description": section.__doc__,
        "additionalProperties": False,
        "properties": {name: _part_schema(part) for name, part in parts(section).items()},
    }


def _part_schema(part: FieldInfo) -> Schema:
    if part.key:
        return _key_schema(part, part.key)
    if part.many:
        described = {"type": ["array", "null"], "items": _section_schema(part.section)}
        # Where there is an item by default, the defaults of its keys tell which.
        return described if part.default else {**described, "default": []}
    return _section_schema(part.section, may_be_empty=True)


def _key_schema(part: FieldInfo, key: KeySpec) -> Schema:
    shape = key.kind.schema()
    if part.optional:
        shape = {"anyOf": [*shape.get("anyOf", [shape]), {"type": "null"}]}
    described = {"description": _meaning(key), **shape, "examples": [_example(key)]}
    if not part.required:
        described["default"] = _written(key, part.default)
    return described


def _example(key: KeySpec) -> Any:
    """Give the example as it stands in a file."""
    if isinstance(key.kind, ListOf):
        return [key.kind.item.example]
    return key.kind.write(key.kind.read(key.example or key.kind.example))


def _written(key: KeySpec, value: Any) -> Any:
    return None if value is None else key.kind.write(value)


# -- table ----------------------------------------------------------------------------------------


def reference_table() -> str:
    """Give the table of all keys of docs/reference/configuration.md."""
    rows = ["| Key | Environment variable (flag) | Default | Meaning |", "|---|---|---|---|"]
    rows += [_row(path, part, key) for path, part, key in leaves(Config)]
    return "\n".join(rows) + "\n"


def _row(path: Path, part: FieldInfo, key: KeySpec) -> str:
    flag = f" (`{key.flag}`)" if key.flag else ""
    default = "required" if part.required else _code(_shown(key, part.default))
    cells = (f"`{dotted(path)}`", f"`{variable(path)}`{flag}", default, _meaning(key))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _code(text: str) -> str:
    return text if text in (NOT_SET, "none") else f"`{text}`"


def _meaning(key: KeySpec) -> str:
    return f"{key.doc} Reloadable." if key.live else key.doc


# -- right now ------------------------------------------------------------------------------------


def describe(config: Config) -> list[tuple[str, str]]:
    """List every key with its value as one would write it, secrets hidden."""
    return [(name, text) for name, text, _, _ in in_effect(config)]


def in_effect(config: Config) -> Iterator[tuple[str, str, ValueType, bool]]:
    """Tell of every key its value, its kind, and whether the value is another than the default."""
    for path, part, key, value in _values(config, ()):
        yield dotted(path), _shown(key, value), key.kind, value != part.default


def _values(section: Any, path: Path) -> Iterator[tuple[Path, FieldInfo, KeySpec, Any]]:
    for part in parts(type(section)).values():
        here, value = (*path, part.name), getattr(section, part.name)
        if part.key:
            yield here, part, part.key, value
        elif part.many:
            for at, each in enumerate(value):
                yield from _values(each, (*here, str(at)))
        elif value is not None:
            yield from _values(value, here)


def _shown(key: KeySpec, value: Any) -> str:
    written = _written(key, value)
    if written is None:
        return NOT_SET
    if isinstance(written, list):
        return ", ".join(written) or "none"
    return str(written).lower() if isinstance(written, bool) else str(written)
