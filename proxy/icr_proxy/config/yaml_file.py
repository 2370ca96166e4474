"""A YAML file as a tree of texts that know their line.

Values stay text: `yes`, `2023-06-16`, `22:22` and `010` mean different things to different
versions of YAML, and only the key knows what it wants. So a value in the file is read exactly
like the same text in an environment variable.

The tree is built from parser events: PyYAML's own composer recurses (a few thousand brackets end
the process in C), accepts duplicate keys and would build objects.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from icr_proxy.config.document import Entries, Mapping, Node, Scalar, Sequence
from icr_proxy.errors import ConfigError
from icr_proxy.files import PIPE_SECONDS, read_at_most

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LARGEST = 1 << 20  # ours has 4 KiB; a megabyte is a wrong file
_DEEPEST = 20
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_CORE = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_CORE + word for word in ("bool", "float", "int", "str", "timestamp"))
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class _Unreadable(Exception):  # noqa: N818 - not an error of the program, a finding
    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


def read(path: Path) -> Mapping:
    """Read a file; raise ConfigError if there is none, or it is not one mapping of YAML."""
    try:
        return parse(_text(path))
    except _Unreadable as exc:
        place = f"{path}, line {exc.line}" if exc.line else str(path)
        raise ConfigError((f"{place}: {exc.what}",)) from None


def _text(path: Path) -> str:
    try:
        content = read_at_most(path, _LARGEST + 1, patience=PIPE_SECONDS)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = getattr(exc, "strerror", None) or "not a path"
        raise _Unreadable(f"cannot be read: {reason}") from None
    if len(content) > _LARGEST:
        raise _Unreadable("is longer than 1 MiB, so hardly a configuration of this program")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content[: exc.start].count(b"\n") + 1
        raise _Unreadable("is not UTF-8", line) from None


def parse(text: str) -> Mapping:
    """Turn the text of a file into its tree."""
    events = yaml.parse(text, Loader=_LOADER)
    try:
        root = _Tree(events).document()
    except yaml.MarkedYAMLError as exc:
        mark: Any = exc.problem_mark or exc.context_mark
        raise _Unreadable(
            f"is not YAML: {_harmless(exc.problem)}", mark and mark.line + 1
        ) from None
    except yaml.YAMLError:  # the reader's: a control character, half a surrogate pair
        raise _Unreadable("is not YAML: a character that is not allowed") from None
    if isinstance(root, Scalar) and root.text is None:
        return Mapping(1, {})
    if not isinstance(root, Mapping):
        raise _Unreadable("is not a mapping; write section: and below it, indented, key: value")
    return root


def _harmless(problem: str | None) -> str:
    """Cut a parser's message where it begins to quote the file, which may hold a key."""
    return re.split(r"['\"]", problem or "malformed")[0].strip()


class _Tree:
    """Builds nodes from events; an anchor is known only once its node is complete."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._depth = 0

    def document(self) -> Node:
        root: Node = Scalar(1, None)
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Unreadable("holds a second document; keep one", _line(event))
                root = self._node(next(self._events))
        return root

    def _node(self, event: Any) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        node = self._fresh(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise _Unreadable("refers with * to an anchor that is not there", _line(event))
        return self._anchors[event.anchor]

    def _fresh(self, event: Any) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _Unreadable("is nested too deeply", _line(event))
        node = self._inner(event)
        self._depth -= 1
        return node

    def _inner(self, event: Any) -> Node:
        kind = "seq" if isinstance(event, yaml.SequenceStartEvent) else "map"
        if event.tag not in (None, "!", _CORE + kind):
            raise _Unreadable("has a tag (!…) that means nothing here", _line(event))
        return self._sequence(event) if kind == "seq" else self._mapping(event)

    def _sequence(self, start: Any) -> Sequence:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event))
        return Sequence(_line(start), items)

    def _mapping(self, start: Any) -> Mapping:
        entries: Entries = {}
        merged: Entries = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = _line(event)
            name = _name(self._node(event), line)
            value = self._node(next(self._events))
            if name in entries or (name == "<<" and merged):
                raise _Unreadable(f"has the key {name} twice in one mapping", line)
            if name == "<<":
                merged = _merged(value, line)
                continue
            entries[name] = (line, value)
        return Mapping(_line(start), merged | entries)


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _scalar(event: Any) -> Scalar:
    if event.tag not in (None, "!", _CORE + "null", *_PLAIN_TAGS):
        raise _Unreadable("has a tag (!…) that means nothing here", _line(event))
    plain = event.implicit[0] and event.style in (None, "")
    nothing = event.tag == _CORE + "null" or (plain and event.value in _NULL)
    return Scalar(_line(event), None if nothing else event.value)


def _name(key: Node, line: int) -> str:
    text = key.text if isinstance(key, Scalar) else None
    if text == "<<":
        return text
    # A key that is no name may be a secret whose colon went missing: `{private_key:MIIE…}`.
    if text is None or not _NAME.fullmatch(text):
        raise _Unreadable("has a key that is not a name; is there a space after the colon?", line)
    return text


def _merged(value: Node, line: int) -> Entries:
    """Merge as `<<` does: of several, the earlier ones win."""
    sources = value.items if isinstance(value, Sequence) else [value]
    merged: Entries = {}
    for each in sources:
        if not isinstance(each, Mapping):
            raise _Unreadable("merges (<<) something that is not a mapping", line)
        merged = each.entries | merged
    return merged
