"""One log line for each request: a reader of outcomes.

For machines it is made without a detour, since there are as many of them as there are requests:
no dictionary, and one encoding and one write for all that `dispatch` hands on at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from icr_proxy.clock import milliseconds, stamp
from icr_proxy.observability.log import encode_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from icr_proxy.observability.log import LineBuffer, Log, Threshold
    from icr_proxy.observability.outcome import Outcome

FIRST_ERROR = 400
SHARE_DIGITS = 8
SHARE_OF = 1 << 4 * SHARE_DIGITS
EVENT = "request.done"


class Sampling:
    """How many of the reads that went well are logged, which may change while running."""

    def __init__(self, reads: float) -> None:
        self.reads = reads


class RequestLine(msgspec.Struct, frozen=True, gc=False):
    """What a line says, in reading order."""

    ts: str
    level: str
    event: str
    method: str
    path: str
    status: int
    operation: str
    caller: str | None
    installation: str | None
    origin: str
    code: str | None
    duration_ms: float | None
    first_byte_ms: float | None
    token_wait_ms: float | None
    bytes_in: int
    bytes_out: int
    attempts: int
    token: str | None
    token_generation: int | None
    would_refuse: str | None
    duplicate_of: str | None
    request_id: str
    upstream_request_id: str | None
    trace_id: str
    listener: str
    peer: str


class JsonBatch(msgspec.Struct, frozen=True):
    """Where JSON lines go that are encoded many at a time, and which levels pass."""

    lines: LineBuffer
    threshold: Threshold


FIELDS = RequestLine.__struct_fields__[3:]  # after those that every line has


class RequestLog:
    """Writes one `request.done` for each outcome that is not left out as one read of many."""

    def __init__(
        self, log: Log, *, batch: JsonBatch | None = None, sampling: Sampling | None = None
    ) -> None:
        """Write each line with `log`; for machines, many at once into `batch`."""
        self._log = log
        self._batch = batch
        self._sampling = sampling or Sampling(1.0)

    def __call__(self, outcome: Outcome) -> None:
        """Read one outcome."""
        self.read_all((outcome,))

    def read_all(self, outcomes: Iterable[Outcome]) -> None:
        """Write their lines; what went wrong on the proxy's way to the API is a warning."""
        if self._batch is not None:
            self._write(outcomes, self._batch)
            return
        for outcome in outcomes:
            if is_sampled(outcome, share=self._sampling.reads):
                level = "warning" if outcome.code in WORTH_A_LOOK else "info"
                say = self._log.warning if level == "warning" else self._log.info
                line = line_of(outcome, "", level)
                say(EVENT, **{name: getattr(line, name) for name in FIELDS})

    def _write(self, outcomes: Iterable[Outcome], batch: JsonBatch) -> None:
        share = self._sampling.reads
        levels = frozenset(filter(batch.threshold.passes, ("info", "warning")))
        lines: list[RequestLine] = []
        try:
            for outcome in outcomes:
                if share < 1 and not is_sampled(outcome, share=share):
                    continue
                level = "warning" if outcome.code in WORTH_A_LOOK else "info"
                if level in levels:
                    at = stamp(outcome.started_at + outcome.duration)
                    lines.append(line_of(outcome, at, level))
        finally:  # one that fails costs no other its line
            batch.lines.append(encode_all(lines))


def line_of(outcome: Outcome, moment: str, level: str, /) -> RequestLine:
    """Say how a request ended."""
    first_byte = outcome.first_byte
    return RequestLine(
        moment,
        level,
        EVENT,
        outcome.method,
        outcome.path,
        outcome.status,
        outcome.operation,
        outcome.caller,
        outcome.installation,
        outcome.origin,
        outcome.code,
        milliseconds(outcome.duration),
        None if first_byte is None else milliseconds(first_byte),
        milliseconds(outcome.token_wait),
        outcome.bytes_in,
        outcome.bytes_out,
        outcome.attempts,
        outcome.token,
        outcome.token_generation,
        outcome.would_refuse,
        outcome.duplicate_of,
        outcome.request_id,
        outcome.upstream_request_id,
        outcome.trace.id,
        outcome.listener,
        outcome.peer,
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
