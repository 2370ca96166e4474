"""From file, environment and flags to a Config, telling every problem at once.

Flags win over the environment, the environment over the file, the file over the defaults; a value
that another one replaces is not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from icr_proxy.config.loader import Found
from icr_proxy.config.models import Config
from icr_proxy.config.spec import Key, Part, Path, Rule, broken_rules, dotted, find, parts, variable
from icr_proxy.config.value_types import ListOf, take
from icr_proxy.errors import ConfigError

if TYPE_CHECKING:
    from collections import abc
    from pathlib import Path as FilePath

_WRONG: Final = object()  # in place of a value that could not be read


def load(
    *,
    file: FilePath | None,
    environ: abc.Mapping[str, str],
    flags: abc.Mapping[str, str],
) -> Config:
    """Read the configuration; `flags` are named by their dotted path. Raises ConfigError."""
    found = Found(Config)
    if file is not None:
        from icr_proxy.config import yaml_file  # noqa: PLC0415 - most sidecars have no file, hence no YAML

        found.add_file(yaml_file.read(file), name=str(file))
    found.add_environment(environ)
    found.add_flags(flags)
    config: Config = build(found)
    return config


def build(found: Found) -> Any:
    """Make the section that was looked for from what was found."""
    builder = _Builder(found)
    section = builder.section(found.section, ())
    if builder.problems:
        raise ConfigError(tuple(builder.problems))
    return section


class _Builder:
    def __init__(self, found: Found) -> None:
        self._found = found
        self.problems = list(found.problems)

    def section(self, section: Any, path: Path) -> Any:
        """Read all keys of a section, and apply those rules that can be applied."""
        read = {name: self._part(part, (*path, name)) for name, part in parts(section).items()}
        values = {name: value for name, value in read.items() if value is not _WRONG}
        broken = broken_rules(section, values)
        for rule, text in broken:
            self._broken(path, rule, text)
        if broken or len(values) < len(read):
            return _WRONG
        return section(**values)

    def _part(self, part: Part, path: Path) -> Any:
        if part.key:
            return self._value(part, part.key, path)
        if part.many:
            return self._list(part, path)
        if part.optional and path not in self._found.present:
            return None
        return self.section(part.section, path)

    def _list(self, part: Part, path: Path) -> Any:
        present = self._found.present
        if path not in present:
            return part.default
        items = sorted(int(each[-1]) for each in present if each[:-1] == path)
        if items != list(range(len(items))):
            self._complain(path, f"number {items[-1]} is there, but not all before it, from 0 on")
            return _WRONG
        sections = tuple(self.section(part.section, (*path, str(at))) for at in items)
        return _WRONG if _WRONG in sections else sections

    def _value(self, part: Part, key: Key, path: Path) -> Any:
        given = self._found.values.get(path)
        if given is None:
            return self._required(key, path) if part.required else part.default
        if given.raw is None and (part.optional or isinstance(key.kind, ListOf)):
            return part.default
        value, complaints = take(key.kind, "" if given.raw is None else given.raw)
        for at, text in complaints:
            self._complain(path, text, at=at)
        return _WRONG if complaints else value

    def _required(self, key: Key, path: Path) -> object:
        self._complain(path, f"is required; {_remedy(key, path)}")
        return _WRONG

    def _broken(self, path: Path, rule: Rule, text: str) -> None:
        first, *_ = origins = [(*path, name) for name in rule.keys]
        known = find(self._found.section, first)
        if known and not any(each in self._found.values for each in origins):
            text = f"{text}; {_remedy(known[1], first)}"
        self._complain(first, text, origins=origins)

    def _complain(
        self, path: Path, text: str, *, at: str = "", origins: abc.Sequence[Path] = ()
    ) -> None:
        """Note a problem, and from where its values came if they are not defaults."""
        given = [self._found.values.get(each) for each in origins or [path]]
        sources = dict.fromkeys(each.source for each in given if each)
        source = f" (from {' and '.join(sources)})" if sources else ""
        self.problems.append(f"{dotted(path)}{at}: {text}{source}")


def _remedy(key: Key, path: Path) -> str:
    flag = f" or {key.flag}" if key.flag else ""
    return f"set it in the file, or by {variable(path)}{flag}"
