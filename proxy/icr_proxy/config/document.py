"""A file of nested keys, read but not yet understood: texts that know their line."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Scalar(msgspec.Struct, frozen=True):
    """Text, or None where nothing stands."""

    line: int
    text: str | None


class Sequence(msgspec.Struct, frozen=True):
    """A list."""

    line: int
    items: list[Node]


class Mapping(msgspec.Struct, frozen=True):
    """Keys, each with its line, and what stands under them."""

    line: int
    entries: Entries


Node: TypeAlias = "Scalar | Sequence | Mapping"
Entries: TypeAlias = "dict[str, tuple[int, Node]]"


def plain(node: Node) -> object:
    """Reduce a node to text, None, {} or a list of these: what a single value can be.

    What lies deeper is left out: it is no value of ours, and anchors can make it endless.
    """
    if isinstance(node, Sequence):
        return [_flat(item) for item in node.items]
    return _flat(node)


def _flat(node: Node) -> object:
    if isinstance(node, Scalar):
        return node.text
    return [] if isinstance(node, Sequence) else {}
