"""Which events the program can log, read off its source."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from icr_proxy.observability import request_log

if TYPE_CHECKING:
    from collections.abc import Iterator

PROXY = Path(__file__).parents[2] / "proxy"
NAME = re.compile(r"[a-z]+\.[a-z_]+")
LEVELS = {"debug", "info", "warning", "error"}
SOMETIMES = "say"  # what a level is called that is chosen while running


@dataclass
class Event:
    """What is said of one event, in all places that log it."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def events() -> dict[str, Event]:
    """Find every call that logs; the emulator is a program of its own."""
    found = {request_log.EVENT: Event({SOMETIMES}, set(request_log.FIELDS))}  # it is no call's text
    for path in sorted(PROXY.rglob("*.py")):
        if "emulator" in path.parts:
            continue
        for call in _calls(ast.parse(path.read_text())):
            name, level = _said(call)
            if name is None:
                continue
            event = found.setdefault(name, Event())
            event.levels.add(level)
            event.fields |= {each.arg for each in call.keywords if each.arg is not None}
    return found


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)


def _said(call: ast.Call) -> tuple[str | None, str]:
    first = call.args[0]
    if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
        return None, ""
    if NAME.fullmatch(first.value) is None:
        return None, ""
    if isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS:
        return first.value, call.func.attr
    if isinstance(call.func, ast.Name) and call.func.id == SOMETIMES:
        return first.value, SOMETIMES
    return None, ""
