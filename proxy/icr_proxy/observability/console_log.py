"""Log lines for a person at a terminal, drawn by structlog, which nobody else has to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    Event = MutableMapping[str, Any]


def console_log(
    lines: object, *, passes: Callable[[str], bool], moment: Callable[[], str], colors: bool
) -> Any:
    """Make a logger that writes what `passes` into `lines`."""
    console = structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="ts", sort_keys=False, pad_event_to=14
    )

    def threshold(_logger: object, method: str, event: Event) -> Event:
        if not passes(method):
            raise structlog.DropEvent
        return event

    def stamp(_logger: object, method: str, event: Event) -> Event:
        return {"ts": moment(), "level": method, "event": event.pop("event"), **event}

    def render(logger: Any, method: str, event: Any) -> bytes:
        said = {name: _legible(value) for name, value in event.items() if value is not None}
        return str(console(logger, method, said)).encode()

    return structlog.wrap_logger(
        lines,
        processors=[threshold, stamp, render],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        cache_logger_on_first_use=True,
    )


def _legible(value: object) -> object:
    """Show what a terminal would obey instead of showing it."""
    return repr(value) if isinstance(value, str) and not value.isprintable() else value
