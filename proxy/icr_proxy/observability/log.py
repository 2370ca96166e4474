"""Log lines: names with fields, JSON for machines, colours for a person at a terminal.

Nothing secret is ever handed to the logger, so nothing is redacted here. The logger is wrapped,
not configured: there is no module-level state, and tests may have one each.
"""

from __future__ import annotations

import io
import json
import logging
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import structlog

from icr_proxy.clock import stamp
from icr_proxy.observability.log_writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from structlog.typing import EventDict, Processor

    from icr_proxy.config.models import LogsConfig

RANKS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FRAMES_TOLD = 20  # the innermost; a recursion has a thousand


class Log(Protocol):
    """What the program uses of structlog's logger."""

    def debug(self, event: str, **fields: object) -> None:
        """Say what only a developer wants to know."""

    def info(self, event: str, **fields: object) -> None:
        """Say what happened."""

    def warning(self, event: str, **fields: object) -> None:
        """Say what somebody should look at."""

    def error(self, event: str, **fields: object) -> None:
        """Say what somebody must look at."""


class ByteStream(Protocol):
    """What lines are written to: a `LogWriter`, or any binary file."""

    def write(self, data: bytes, /) -> object:
        """Take whole lines."""

    def flush(self) -> None:
        """Write what is buffered."""

    def isatty(self) -> bool:
        """Whether a person reads the lines as they come."""


class Threshold:
    """Drops what is below `logs.level`, which may change while running."""

    def __init__(self, level: str) -> None:
        self.level = level

    def passes(self, level: str) -> bool:
        """Tell whether an event of this level is worth a line."""
        return RANKS[level] >= RANKS[self.level]


def build_log(
    config: LogsConfig, *, lines: LineBuffer, threshold: Threshold, now: Callable[[], float]
) -> Log:
    """Make the one logger of the program; lines that its writer drops are told in its format."""
    log = _build_log(config, lines=lines, threshold=threshold, now=now)
    if lines.writer is not None:
        kept = MemoryStream(on_terminal=lines.are_for_a_terminal)
        notices = _build_log(config, lines=LineBuffer(kept), threshold=threshold, now=now)

        def notice(dropped: int) -> bytes:
            notices.warning("log.dropped", lines=dropped)
            return kept.drain()

        lines.writer.notice = notice
    return log


def writes_json(config: LogsConfig, lines: LineBuffer) -> bool:
    """Tell whether lines are for machines."""
    return config.format == "json" or (config.format == "auto" and not lines.are_for_a_terminal)


def _build_log(
    config: LogsConfig, *, lines: LineBuffer, threshold: Threshold, now: Callable[[], float]
) -> Log:
    """Wrap the lines in a structlog logger: drop by level, add what every line has, render."""

    def complete(_logger: object, level: str, event: EventDict) -> EventDict:
        if not threshold.passes(level):
            raise structlog.DropEvent
        return {"ts": stamp(now()), "level": level, "event": event.pop("event"), **event}

    for_machines = writes_json(config, lines)
    render = render_json if for_machines else console_renderer(colors=lines.are_for_a_terminal)
    log: Log = structlog.wrap_logger(
        lines,
        processors=[complete, render],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    ).bind()  # else each event would bind anew
    return log


def render_json(_logger: object, _level: str, event: EventDict) -> bytes:
    """Render one event as JSON: the last processor, for machines."""
    return encode(event)


def console_renderer(*, colors: bool) -> Processor:
    """Make the last processor for a person at a terminal."""
    from structlog.dev import ConsoleRenderer  # noqa: PLC0415  # a service writes JSON

    console = ConsoleRenderer(colors=colors, timestamp_key="ts", sort_keys=False, pad_event_to=14)

    def render(logger: Any, level: str, event: EventDict) -> bytes:
        shown = {name: _legible(value) for name, value in event.items() if value is not None}
        return str(console(logger, level, shown)).encode()

    return render


def _legible(value: object) -> object:
    """Show what a terminal would obey instead of showing it."""
    return repr(value) if isinstance(value, str) and not value.isprintable() else value


class LineBuffer:
    """Writes whole lines. A full disk or a collector that has gone loses lines, not requests."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.writer = stream if isinstance(stream, LogWriter) else None
        """The thread that writes them, if there is one."""
        self._gathered: list[bytes] = []
        self.before_flush: Callable[[], None] = lambda: None
        """Called before a line is written: what happened before it comes first."""

    @property
    def are_for_a_terminal(self) -> bool:
        """Whether a person reads them as they come."""
        return self._stream.isatty()

    @property
    def dropped(self) -> int:
        """How many lines were lost since the start."""
        return self.writer.drops.lines if self.writer is not None else 0

    def write(self, line: bytes) -> None:
        """Write and flush one line, after those that wait."""
        self.before_flush()
        self._gathered.append(line + b"\n")
        self.flush()

    def append(self, lines: bytes) -> None:
        """Keep lines, each with its end, until `flush`, so that many are written as one."""
        self._gathered.append(lines)

    def flush(self) -> None:
        """Write what waits."""
        if not self._gathered:
            return
        lines, self._gathered = b"".join(self._gathered), []
        with suppress(OSError, ValueError):  # the latter if the stream is closed
            self._stream.write(lines)
            self._stream.flush()

    debug = info = warning = error = write  # the names by which structlog calls it


class MemoryStream(io.BytesIO):
    """Keeps lines in memory for whoever takes them."""

    def __init__(self, *, on_terminal: bool) -> None:
        super().__init__()
        self._on_terminal = on_terminal

    def isatty(self) -> bool:
        """Whether they end up on a terminal."""
        return self._on_terminal

    def drain(self) -> bytes:
        """Give what was written since the last time."""
        lines = self.getvalue()
        self.seek(0)
        self.truncate()
        return lines


ENCODER = msgspec.json.Encoder(enc_hook=str)


def encode(event: EventDict | msgspec.Struct) -> bytes:
    """Write one event as JSON."""
    try:
        return ENCODER.encode(event)
    except UnicodeEncodeError:  # surrogates, as which Python hands over bytes that are no text
        said = msgspec.structs.asdict(event) if isinstance(event, msgspec.Struct) else event
        text = json.dumps(said, default=str, ensure_ascii=False)
        return text.encode("utf-8", "replace")


def encode_all(events: Sequence[msgspec.Struct]) -> bytes:
    """Write many, each on a line of its own; together they cost half as much."""
    try:
        return ENCODER.encode_lines(events)
    except UnicodeEncodeError:
        return b"".join(encode(event) + b"\n" for event in events)


def where(error: BaseException) -> dict[str, object]:
    """Describe an unexpected exception: its type and the lines it passed, never its text.

    The text of a foreign exception may hold a header or a piece of a body.
    """
    frames = traceback.extract_tb(error.__traceback__, limit=-FRAMES_TOLD)
    lines = [f"{at.name} ({at.filename.rpartition('/')[2]}:{at.lineno})" for at in frames]
    return {"error": type(error).__name__, "where": lines}


class StdlibLogHandler(logging.Handler):
    """Brings what libraries say through `logging` into the program's own log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on who spoke and where it failed; the text may hold anything, so it stays out."""
        error = record.exc_info[1] if record.exc_info else None
        self._log.error(
            "library.error",
            logger=record.name,
            template=str(record.msg) if record.args else None,
            **(where(error) if error is not None else {}),
        )
