"""Log lines: names with fields, JSON for machines, colours for a person at a terminal.

Nothing secret is ever handed to the logger, so nothing is redacted here. The logger is wrapped,
not configured: there is no module-level state, and tests may have one each.
"""

from __future__ import annotations

import json
import logging
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from proxy.config import LogsConfig
    from proxy.outcome import Outcome

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


class Threshold:
    """Drops what is below `logs.level`, which may change while running."""

    def __init__(self, level: str) -> None:
        self.level = level

    def __call__(
        self, _logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Pass an event or end its way."""
        if RANKS[method] < RANKS[self.level]:
            raise structlog.DropEvent
        return event


def build_log(
    config: LogsConfig, *, stream: BinaryIO, threshold: Threshold, now: Callable[[], float]
) -> Log:
    """Make the one logger of the program, writing whole lines to `stream`."""

    def stamp(
        _logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        moment = datetime.fromtimestamp(now(), UTC).isoformat(timespec="milliseconds")
        return {"ts": moment, "level": method, "event": event.pop("event"), **event}

    on_terminal = stream.isatty()
    if config.format == "json" or (config.format == "auto" and not on_terminal):
        render: Callable[[Any, str, Any], bytes] = _encode
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=on_terminal, timestamp_key="ts", sort_keys=False, pad_event_to=14
        )

        def render(logger: Any, method: str, event: Any) -> bytes:
            said = {name: _legible(value) for name, value in event.items() if value is not None}
            return str(console(logger, method, said)).encode()

    log: Log = structlog.wrap_logger(
        Lines(stream),
        processors=[threshold, stamp, render],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        cache_logger_on_first_use=True,
    )
    return log


class Lines:
    """Writes whole lines. A full disk or a collector that has gone loses lines, not requests."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        """Write one line and see it off."""
        with suppress(OSError, ValueError):  # the latter if the stream is closed
            self._stream.write(line + b"\n")
            self._stream.flush()

    debug = info = warning = error = write


def _encode(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(event, enc_hook=str)
    except UnicodeEncodeError:  # surrogates, as which Python hands over bytes that are no text
        text = json.dumps(event, default=str, ensure_ascii=False)
        return text.encode("utf-8", "replace")


def _legible(value: object) -> object:
    """Show what a terminal would obey instead of showing it."""
    return repr(value) if isinstance(value, str) and not value.isprintable() else value


def where(error: BaseException) -> dict[str, object]:
    """Describe an unexpected exception: its type and the lines it passed, never its text.

    The text of a foreign exception may hold a header or a piece of a body.
    """
    frames = traceback.extract_tb(error.__traceback__, limit=-FRAMES_TOLD)
    lines = [f"{at.name} ({at.filename.rpartition('/')[2]}:{at.lineno})" for at in frames]
    return {"error": type(error).__name__, "where": lines}


class Bridge(logging.Handler):
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


class RequestLog:
    """Writes one `request.done` for each outcome."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __call__(self, outcome: Outcome) -> None:
        """Write the line; what went wrong on the proxy's way to the API is a warning."""
        say = self._log.warning if outcome.code in WORTH_A_LOOK else self._log.info
        say(
            "request.done",
            method=outcome.method,
            path=outcome.path,
            status=outcome.status,
            operation=outcome.operation,
            installation=outcome.installation,
            origin=outcome.origin,
            code=outcome.code,
            duration_ms=_milliseconds(outcome.duration),
            first_byte_ms=_milliseconds(outcome.first_byte),
            token_wait_ms=_milliseconds(outcome.token_wait),
            bytes_in=outcome.bytes_in,
            bytes_out=outcome.bytes_out,
            attempts=outcome.attempts,
            token=outcome.token,
            token_generation=outcome.token_generation,
            would_refuse=outcome.would_refuse,
            duplicate_of=outcome.duplicate_of,
            request_id=outcome.request_id,
            trace_id=outcome.trace_id,
            listener=outcome.listener,
            peer=outcome.peer,
        )


# Codes whose cause lies with the API, the credentials or the proxy, not with the caller.
WORTH_A_LOOK = frozenset(
    {
        "app-key-refused",
        "duplicate-suspected",
        "internal",
        "mint-failed",
        "mint-timeout",
        "overloaded",
        "upstream-broken",
        "upstream-timeout",
        "upstream-tls",
        "upstream-unreachable",
    }
)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
