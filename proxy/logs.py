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
FIRST_ERROR = 400
SHARE_DIGITS = 8
SHARE_OF = 1 << 4 * SHARE_DIGITS
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
        if not self.passes(method):
            raise structlog.DropEvent
        return event

    def passes(self, level: str) -> bool:
        """Tell whether an event of this level is worth a line."""
        return RANKS[level] >= RANKS[self.level]


def build_log(
    config: LogsConfig, *, stream: BinaryIO, threshold: Threshold, now: Callable[[], float]
) -> Log:
    """Make the one logger of the program, writing whole lines to `stream`."""

    def stamp(
        _logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {"ts": moment(now()), "level": method, "event": event.pop("event"), **event}

    on_terminal = stream.isatty()
    if config.format == "json" or (config.format == "auto" and not on_terminal):
        return JsonLog(Lines(stream), threshold=threshold, now=now)
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


def moment(seconds: float) -> str:
    """Write a time as log lines do: UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


class JsonLog:
    """Lines for machines: one encoding and one write, no chain of processors for each of them."""

    def __init__(self, lines: Lines, *, threshold: Threshold, now: Callable[[], float]) -> None:
        self._lines = lines
        self._threshold = threshold
        self._now = now

    def debug(self, event: str, **fields: object) -> None:
        """Say what only a developer wants to know."""
        self._say("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Say what happened."""
        self._say("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Say what somebody should look at."""
        self._say("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Say what somebody must look at."""
        self._say("error", event, fields)

    def _say(self, level: str, event: str, fields: dict[str, object]) -> None:
        if self._threshold.passes(level):
            said = {"ts": moment(self._now()), "level": level, "event": event, **fields}
            self._lines.write(encode(said))


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


ENCODER = msgspec.json.Encoder(enc_hook=str)


def encode(event: dict[str, object]) -> bytes:
    """Write one event as JSON."""
    try:
        return ENCODER.encode(event)
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


class Sampling:
    """How many of the reads that went well are logged, which may change while running."""

    def __init__(self, reads: float) -> None:
        self.reads = reads


class RequestLog:
    """Writes one `request.done` for each outcome that is not left out as one read of many."""

    def __init__(self, log: Log, *, sampling: Sampling | None = None) -> None:
        self._log = log
        self._sampling = sampling or Sampling(1.0)

    def __call__(self, outcome: Outcome) -> None:
        """Write the line; what went wrong on the proxy's way to the API is a warning."""
        if not is_sampled(outcome, share=self._sampling.reads):
            return
        say = self._log.warning if outcome.code in WORTH_A_LOOK else self._log.info
        say(
            "request.done",
            method=outcome.method,
            path=outcome.path,
            status=outcome.status,
            operation=outcome.operation,
            caller=outcome.caller,
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


def is_sampled(outcome: Outcome, *, share: float) -> bool:
    """Tell whether an outcome is logged: writes, refusals and errors are, and a share of the rest.

    Decided by the trace's random digits, so that the lines of one trace are all there or all not.
    """
    if share >= 1 or outcome.changes_state or outcome.code is not None:
        return True
    if outcome.status >= FIRST_ERROR or outcome.would_refuse is not None:
        return True
    return int(outcome.trace_id[-SHARE_DIGITS:], 16) < share * SHARE_OF


# Codes whose cause lies with the API, the credentials or the proxy, not with the caller.
WORTH_A_LOOK = frozenset(
    {
        "app-key-refused",
        "circuit-open",
        "duplicate-suspected",
        "audit-unavailable",
        "internal",
        "mint-failed",
        "mint-timeout",
        "overloaded",
        "upstream-broken",
        "upstream-loop",
        "upstream-timeout",
        "upstream-tls",
        "upstream-unreachable",
    }
)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
