"""Writes rows as text, CSV or Markdown; pure."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a spreadsheet would take for a formula (CWE-1236); callers choose paths and ids.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a table for a terminal."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [[_printable(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in [names, *cells]) for at in range(len(names))]
    lines = [names, ["-" * width for width in widths], *cells]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def as_csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Write what a spreadsheet opens, and does not execute."""
    out = io.StringIO()
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(row.get(name)) for name in names} for row in rows)
    return out.getvalue()


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a table for a document."""
    if not rows:
        return "None.\n"
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[_escaped(row.get(name)) for name in names] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _printable(value: object) -> str:
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _escaped(value: object) -> str:
    text = _printable(value)
    for char in "\\`*_[]<>|":
        text = text.replace(char, f"\\{char}")
    return text


def _harmless(value: object) -> object:
    text = value if isinstance(value, str) else None
    return f"'{text}" if text is not None and text.startswith(_FORMULA) else value
