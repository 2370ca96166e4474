"""The loader: reads file, environment and flags into a configuration, at start and at a reload.

Here is decided which key a name means, and which names mean none; what a value means is for
`loader` to find out. The value of an unknown key is never repeated: a misspelt `private_ky`
holds a key all the same.

Flags win over the environment, the environment over the file, the file over the defaults; a value
that another one replaces is not looked at.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from icr_proxy.config.document import Mapping, Sequence, plain
from icr_proxy.config.inbound_models import NOBODY
from icr_proxy.config.models import Config
from icr_proxy.config.spec import (
    PREFIX,
    CrossFieldRule,
    FieldInfo,
    KeySpec,
    Path,
    broken_rules,
    dotted,
    leaves,
    lookup_key,
    parts,
    variable,
)
from icr_proxy.config.value_types import ListOf, SecretText, parse_value
from icr_proxy.errors import ConfigError
from icr_proxy.redaction import in_quotes

if TYPE_CHECKING:
    from collections import abc
    from collections.abc import Iterator
    from pathlib import Path as FilePath

    from icr_proxy.config.document import Entries, Node

FILE_VARIABLE = PREFIX + "CONFIG"

# Kubernetes puts these into every pod beside a Service called icr-proxy or icr-proxy-something.
_SERVICE_NAME = re.compile(
    r"ICR_PROXY(_[A-Z0-9]+)*_SERVICE_(HOST|PORT(_[A-Z0-9]+)*)"
    r"|ICR_PROXY(_[A-Z0-9]+)*_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)
_SERVICE_PORT = re.compile(r"ICR_PROXY(_[A-Z0-9]+)*_PORT=(tcp|udp|sctp)://.*")


class Given(msgspec.Struct, frozen=True):
    """One raw value (text, a list of texts, None for nothing, {} for a mapping), and its place."""

    raw: object
    source: str


class LoadedValues(msgspec.Struct):
    """All values by path, sections that are there, and names that mean nothing."""

    section: Any
    values: dict[Path, Given] = msgspec.field(default_factory=dict)
    present: set[Path] = msgspec.field(default_factory=set)
    problems: list[str] = msgspec.field(default_factory=list)

    def add(self, path: Path, given: Given) -> None:
        """Keep a value; later ones win. The sections around it are there, too."""
        self.values[path] = given
        self.present.update(path[:end] for end in range(1, len(path)))

    # -- file -------------------------------------------------------------------------------------

    def add_file(self, tree: Mapping, *, name: str) -> None:
        """Take what a file says."""
        self._walk(self.section, tree.entries, path=(), name=name)

    def _walk(self, section: Any, entries: Entries, *, path: Path, name: str) -> None:
        for step, (line, node) in entries.items():
            here, source = (*path, step), f"{name}, line {line}"
            part = parts(section).get(step)
            if part is None:
                hint = _hint_for_key(self.section, section, here)
                self.problems.append(f"{dotted(here)}: unknown key{hint} (from {source})")
            elif part.key:
                self.add(here, Given(plain(node), source))
            elif plain(node) is None:
                pass  # all keys below it are commented out
            elif part.many:
                self._walk_list(part.section, node, path=here, name=name)
            else:
                self._walk_section(part.section, node, path=here, name=name)

    def _walk_list(self, section: Any, node: Node, *, path: Path, name: str) -> None:
        if not isinstance(node, Sequence):
            self._misshapen(path, "is not a list; begin each item with -", node, name)
            return
        self.present.add(path)
        for at, item in enumerate(node.items):
            self._walk_section(section, item, path=(*path, str(at)), name=name)

    def _walk_section(self, section: Any, node: Node, *, path: Path, name: str) -> None:
        self.present.add(path)
        if isinstance(node, Mapping):
            self._walk(section, node.entries, path=path, name=name)
        else:
            self._misshapen(path, "is not a mapping; write key: value below it", node, name)

    def _misshapen(self, path: Path, rule: str, node: Node, name: str) -> None:
        self.problems.append(f"{dotted(path)}: {rule} (from {name}, line {node.line})")

    # -- environment and flags --------------------------------------------------------------------

    def add_environment(self, environ: abc.Mapping[str, str]) -> None:
        """Take what the environment says."""
        for name, text in environ.items():
            if not name.startswith(PREFIX) or name == FILE_VARIABLE or _is_service_link(name, text):
                continue
            path = tuple(name.removeprefix(PREFIX).lower().split("__"))
            known = lookup_key(self.section, path)
            if known and variable(path) == name:
                self._add_text(path, known[1], text, source=f"environment variable {name}")
            else:
                hint = _hint_for_variable(self.section, name)
                self.problems.append(f"{name}: unknown environment variable{hint}")

    def add_flags(self, flags: abc.Mapping[str, str]) -> None:
        """Take what flags say; `listeners[0].bind` and `listeners.0.bind` are the same."""
        for name, text in flags.items():
            path = tuple(name.replace("[", ".").replace("]", "").split("."))
            known = lookup_key(self.section, path)
            if known is None:
                self.problems.append(f"{name}: unknown key (from a flag)")
                continue
            self._add_text(path, known[1], text, source=f"flag {known[1].flag or name}")

    def _add_text(self, path: Path, key: KeySpec, text: str, *, source: str) -> None:
        if isinstance(key.kind, ListOf) and not in_quotes(text.strip()):
            items = [each.strip() for each in text.split(",")] if text.strip() else []
            self.add(path, Given(items, source))
            return
        # Mounted secrets like to end with a line break; a private key keeps its own.
        kept = text if isinstance(key.kind, SecretText) else text.strip()
        self.add(path, Given(kept, source))


def _is_service_link(name: str, text: str) -> bool:
    if _SERVICE_NAME.fullmatch(name):
        return True
    return _SERVICE_PORT.fullmatch(f"{name}={text}") is not None


# -- did you mean ---------------------------------------------------------------------------------


def _hint_for_key(root: Any, section: Any, path: Path) -> str:
    near = _nearest(path[-1], list(parts(section)), alike=0.6)
    if near is not None:
        return f"; did you mean {dotted((*path[:-1], near))}?"
    elsewhere = [known for known, _, _ in leaves(root) if known[-1] == path[-1]]
    return f"; did you mean {dotted(elsewhere[0])}?" if elsewhere else ""


def _hint_for_variable(root: Any, name: str) -> str:
    index = re.search(r"__([0-9]+)__", name)
    names = [variable(path) for path, _, _ in leaves(root)]
    if index:
        names = [each.replace("__0__", index[0]) for each in names]
    near = _nearest(name.upper(), names, alike=0.75)
    return f"; did you mean {near}?" if near is not None else ""


def _nearest(name: str, names: list[str], *, alike: float) -> str | None:
    import difflib  # noqa: PLC0415 - only a typing error needs it, never a start

    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=alike)), None)


_WRONG: Final = object()  # in place of a value that could not be read


def load(
    *,
    file: FilePath | None,
    environ: abc.Mapping[str, str],
    flags: abc.Mapping[str, str],
) -> Config:
    """Read the configuration; `flags` are named by their dotted path. Raises ConfigError."""
    found = LoadedValues(Config)
    if file is not None:
        from icr_proxy.config import yaml_file  # noqa: PLC0415 - most sidecars have no file, hence no YAML

        found.add_file(yaml_file.read(file), name=str(file))
    found.add_environment(environ)
    found.add_flags(flags)
    config: Config = build(found)
    return config


def build(found: LoadedValues) -> Any:
    """Make the section that was looked for from what was found."""
    builder = _Builder(found)
    section = builder.section(found.section, ())
    if builder.problems:
        raise ConfigError(tuple(builder.problems))
    return section


class _Builder:
    def __init__(self, found: LoadedValues) -> None:
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

    def _part(self, part: FieldInfo, path: Path) -> Any:
        if part.key:
            return self._value(part, part.key, path)
        if part.many:
            return self._list(part, path)
        if part.optional and path not in self._found.present:
            return None
        return self.section(part.section, path)

    def _list(self, part: FieldInfo, path: Path) -> Any:
        present = self._found.present
        if path not in present:
            return part.default
        items = sorted(int(each[-1]) for each in present if each[:-1] == path)
        if items != list(range(len(items))):
            self._complain(path, f"number {items[-1]} is there, but not all before it, from 0 on")
            return _WRONG
        sections = tuple(self.section(part.section, (*path, str(at))) for at in items)
        return _WRONG if _WRONG in sections else sections

    def _value(self, part: FieldInfo, key: KeySpec, path: Path) -> Any:
        given = self._found.values.get(path)
        if given is None:
            return self._required(key, path) if part.required else part.default
        if given.raw is None and (part.optional or isinstance(key.kind, ListOf)):
            return part.default
        value, complaints = parse_value(key.kind, "" if given.raw is None else given.raw)
        for at, text in complaints:
            self._complain(path, text, at=at)
        return _WRONG if complaints else value

    def _required(self, key: KeySpec, path: Path) -> object:
        self._complain(path, f"is required; {_remedy(key, path)}")
        return _WRONG

    def _broken(self, path: Path, rule: CrossFieldRule, text: str) -> None:
        first, *_ = origins = [(*path, name) for name in rule.keys]
        known = lookup_key(self._found.section, first)
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


def _remedy(key: KeySpec, path: Path) -> str:
    flag = f" or {key.flag}" if key.flag else ""
    return f"set it in the file, or by {variable(path)}{flag}"


def restart_needed(old: Config, new: Config) -> tuple[str, ...]:
    """Name the keys that differ and take effect only on a restart."""
    opens = [("callers",)] if old.callers and not new.callers else []
    return tuple(dotted(path) for path in (*_fixed_changes(old, new, ()), *opens))


def effective(old: Config, new: Config) -> Config:
    """Give the old configuration with those values of the new one that can be taken over.

    If the last caller goes, nobody is let in: that everybody is takes a restart. So a key can be
    withdrawn in any way, and a slip of an editor opens nothing.
    """
    if old.callers and not new.callers:
        new = replace(new, callers=(NOBODY,))
    config: Config = _mixed(old, new)
    return config


def _fixed_changes(old: Any, new: Any, path: Path) -> Iterator[Path]:
    for part in parts(type(old)).values():
        here, before, after = (*path, part.name), getattr(old, part.name), getattr(new, part.name)
        if before == after or _is_live(part):
            continue
        if part.key or _reshaped(before, after):
            yield here
        elif part.many:
            for at, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from _fixed_changes(one, other, (*here, str(at)))
        else:
            yield from _fixed_changes(before, after, here)


def _is_live(part: FieldInfo) -> bool:
    """Tell whether a key, or a list of sections with all their keys, takes effect on reload."""
    if part.key:
        return part.key.live
    return part.many and all(key.live for _, _, key in leaves(part.section))


def _reshaped(before: Any, after: Any) -> bool:
    """Tell whether a section came or went, so that there is nothing to compare key by key."""
    if before is None or after is None:
        return True
    return isinstance(before, tuple) and len(before) != len(after)


def _mixed(old: Any, new: Any) -> Any:
    changes = {}
    for part in parts(type(old)).values():
        before, after = getattr(old, part.name), getattr(new, part.name)
        if part.key or _is_live(part):
            changes[part.name] = after if _is_live(part) else before
        elif _reshaped(before, after):
            changes[part.name] = before
        elif part.many:
            changes[part.name] = tuple(map(_mixed, before, after))
        else:
            changes[part.name] = _mixed(before, after)
    return replace(old, **changes)
