"""What was given where: file, environment and flags, each as a flat table of paths.

Here is decided which key a name means, and which names mean none; what a value means is for
`loading` to find out. The value of an unknown key is never repeated: a misspelt `private_ky`
holds a key all the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from icr_proxy.config.document import Mapping, Sequence, plain
from icr_proxy.config.secretkinds import SecretText
from icr_proxy.config.spec import PREFIX, Key, Path, dotted, find, leaves, parts, variable
from icr_proxy.config.value_types import ListOf
from icr_proxy.redaction import in_quotes

if TYPE_CHECKING:
    from collections import abc

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


class Found(msgspec.Struct):
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
            known = find(self.section, path)
            if known and variable(path) == name:
                self._add_text(path, known[1], text, source=f"environment variable {name}")
            else:
                hint = _hint_for_variable(self.section, name)
                self.problems.append(f"{name}: unknown environment variable{hint}")

    def add_flags(self, flags: abc.Mapping[str, str]) -> None:
        """Take what flags say; `listeners[0].bind` and `listeners.0.bind` are the same."""
        for name, text in flags.items():
            path = tuple(name.replace("[", ".").replace("]", "").split("."))
            known = find(self.section, path)
            if known is None:
                self.problems.append(f"{name}: unknown key (from a flag)")
                continue
            self._add_text(path, known[1], text, source=f"flag {known[1].flag or name}")

    def _add_text(self, path: Path, key: Key, text: str, *, source: str) -> None:
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
