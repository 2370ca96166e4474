"""The audit trail as requests meet it: a reserved place, then a record, off the hot path.

To wake the thread costs several times what a record does, and each time it runs it takes the
interpreter from the loop. So records for which nobody waits go together for a moment; and what
requests wait for goes at the end of the loop's turn, with all that the turn brought. Records are
handed over in the order in which they came.

A timer for each wait would cost more than the record. All may wait equally long, so one timer
serves all of them: it looks at the oldest.

What is promised, whatever `audit.fsync` says: the intent of a request that changes state is in the
file before the request is sent, so that killing the process hides nothing. With `always` it is on
the disk by then, and the next request of the same connection waits until the outcome is, too.
Where records cannot be written, requests are refused, or go on and are counted (`on_failure`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Protocol

from icr_proxy.audit.records import GapRecord, intent_of
from icr_proxy.audit.writer_thread import AwaitedEntry
from icr_proxy.clock import stamp
from icr_proxy.errors import AuditUnavailableError
from icr_proxy.observability.outcome import Announcement
from icr_proxy.query_redaction import QueryRedaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from icr_proxy.audit.records import Record
    from icr_proxy.audit.writer_thread import Entry, WriteResult
    from icr_proxy.config.models import AuditConfig
    from icr_proxy.observability.outcome import Digest, Journal, Outcome

LINGER_SECONDS = 0.02  # how long a record for which nobody waits may wait for others
BATCH_MOST = 512


class WriteBatcher:
    """Batches entries for the writer thread; lives in the event loop."""

    def __init__(self, put: Callable[[Sequence[Entry]], None]) -> None:
        """Hand over by `put`, which must not block."""
        self._put = put
        self._batch: list[Entry] = []
        self._is_scheduled = False
        self._is_timed = False

    def add(self, entry: Entry) -> None:
        """Take one more; it goes at the end of this turn if somebody waits, else before long."""
        self._batch.append(entry)
        if len(self._batch) == BATCH_MOST:
            self.flush()
        elif type(entry) is AwaitedEntry:
            if not self._is_scheduled:
                self._is_scheduled = True
                asyncio.get_running_loop().call_soon(self._flush_after_turn)
        elif not self._is_timed:
            self._is_timed = True
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._flush_after_linger)

    def flush(self) -> None:
        """Hand the batch to the writer thread now."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        self._put(batch)

    def _flush_after_turn(self) -> None:
        self._is_scheduled = False
        self.flush()

    def _flush_after_linger(self) -> None:
        self._is_timed = False
        self.flush()


Durable = asyncio.Future[int | None]
"""The sequence number of a record, as soon as it has one; nothing if that took too long."""


class DurableWaits:
    """Futures resolved when a record is durable; all share one time-out timer."""

    def __init__(self, seconds: float) -> None:
        """Let each wait for so long at most."""
        self._seconds = seconds
        self._waiting: deque[tuple[float, Durable]] = deque()
        self._is_timed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> Durable:
        """Give what to await."""
        loop = self._loop
        if loop is None:  # to ask for it each time would be a system call each time
            loop = self._loop = asyncio.get_running_loop()
        durable: Durable = loop.create_future()
        self._waiting.append((loop.time() + self._seconds, durable))
        if not self._is_timed:
            self._is_timed = True
            loop.call_later(self._seconds, self._expire)
        return durable

    def drop_resolved(self) -> None:
        """Forget those that wait no longer."""
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()

    def _expire(self) -> None:
        """Let those go that have waited for too long, and look again when the next one has."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.drop_resolved()
        while self._waiting and self._waiting[0][0] <= now:
            _, durable = self._waiting.popleft()
            if not durable.done():
                durable.set_result(None)
        self._is_timed = bool(self._waiting)
        if self._waiting:
            loop.call_at(self._waiting[0][0], self._expire)


READ_RECORDS, WRITE_RECORDS = 1, 2  # the outcome; for a write the intent, too


class TrailWatcher(Protocol):
    """Hears how the trail fares."""

    def queued(self, count: int) -> None:
        """How many records wait to be written."""

    def unrecorded(self, *, refused: bool) -> None:
        """There was no room for the record of a request."""


@dataclass(slots=True)
class _Unrecorded:
    since: float
    lost: int = 0
    refused: int = 0


class Trail:
    """The one trail of a process; lives in the event loop."""

    def __init__(
        self,
        *,
        config: AuditConfig,
        put: Callable[[Entry], None],
        watcher: TrailWatcher,
        now: Callable[[], float],
    ) -> None:
        """Record by `config`; `put` hands records on to be written, one after the other."""
        self._config = config
        self._refuses = config.on_failure == "refuse"
        self.new_digest: Callable[[], Digest | None] = (
            hashlib.sha256 if config.body_digests else NoneType
        )
        """Gives what a body is hashed with, if it is to be; asked twice by each request."""
        self._redact = QueryRedaction(config.redact_query)
        self._send = put
        self._watcher = watcher
        self._now = now
        self._room_changed: asyncio.Event | None = None
        self._waits = DurableWaits(config.max_wait)
        self._reserved = 0
        self._queued = 0
        self._unrecorded: _Unrecorded | None = None
        self._is_writable = True

    @property
    def queued(self) -> int:
        """How many records wait to be written."""
        return self._queued

    # -- what a request does ----------------------------------------------------------------------

    async def reserve(self, journal: Journal) -> None:
        """Reserve room for the records of this request.

        Raises:
            AuditUnavailableError: there is none in time, and nothing may go unrecorded.
        """
        count = WRITE_RECORDS if journal.changes_state else READ_RECORDS
        if not self._has_room(count):
            await self._wait_for_room(count)
            if not self._has_room(count):  # only if requests go on unrecorded
                return
        self._reserved += count
        journal.reserved_records = count

    async def announce(self, journal: Journal) -> None:
        """Come back when the intent is as safe as `fsync` says; then the request may be sent.

        Raises:
            AuditUnavailableError: it is not in time, and nothing may go unrecorded.
        """
        if not journal.reserved_records:
            return
        journal.reserved_records -= 1
        self._reserved -= 1
        intent = intent_of(journal, redact=self._redact, now=self._now())
        journal.intent = Announcement()
        durable = self._put_and_wait(intent, announcement=journal.intent)
        if not self._refuses and not self._is_writable:
            return
        if await durable is None and self._refuses:
            raise AuditUnavailableError("the audit trail cannot be written; nothing was sent")

    def record(self, outcome: Outcome, *, reserved: int) -> Durable | None:
        """Record how it ended; give what to wait for before the connection is used again.

        What can be done in the thread is done there: the outcome is frozen, so it can be handed
        over as it is.
        """
        self._reserved -= reserved
        if not reserved and self._reserved + self._queued >= self._config.queue:
            self._count_unrecorded(outcome)
            return None
        if outcome.changes_state and outcome.attempts and self._config.fsync == "always":
            return self._put_and_wait(outcome)
        self._queued += 1
        self._send(outcome)
        return None

    def record_event(self, record: Record) -> Durable:
        """Record what happened to the proxy itself; there is always room for that."""
        return self._put_and_wait(record)

    # -- what the thread says ---------------------------------------------------------------------

    def on_write_result(self, result: WriteResult) -> None:
        """Note the result of a write: records are durable, or could not be written for now."""
        self._is_writable = result.error is None
        self._queued -= len(result.entries)
        first = result.last - len(result.entries) + 1
        for place, durable in result.awaited:
            if not durable.done():
                durable.set_result(first + place)
        self._waits.drop_resolved()
        self._watcher.queued(self._queued)
        unrecorded = self._unrecorded
        if unrecorded is not None and self._is_writable:
            self._unrecorded = None
            gap = GapRecord(
                time=stamp(self._now()),
                since=stamp(unrecorded.since),
                lost=unrecorded.lost,
                refused=unrecorded.refused,
            )
            self._put(gap)
        if self._room_changed is not None:
            self._room_changed.set()
            self._room_changed = None

    # -- places -----------------------------------------------------------------------------------

    def _has_room(self, count: int) -> bool:
        if not self._is_writable and self._refuses:
            return False
        return self._reserved + self._queued + count <= self._config.queue

    async def _wait_for_room(self, count: int) -> None:
        try:
            async with asyncio.timeout(self._config.max_wait):
                while not self._has_room(count) and (self._refuses or self._is_writable):
                    self._room_changed = self._room_changed or asyncio.Event()
                    await self._room_changed.wait()
        except TimeoutError:
            if self._refuses:
                raise AuditUnavailableError(
                    "the audit trail cannot be written; nothing was sent"
                ) from None

    def _put(self, entry: Entry) -> None:
        self._queued += 1
        self._send(entry)

    def _put_and_wait(
        self, what: Record | Outcome, *, announcement: Announcement | None = None
    ) -> Durable:
        durable = self._waits.start()
        self._put(AwaitedEntry(what, durable, announcement))
        return durable

    def _count_unrecorded(self, outcome: Outcome) -> None:
        ended = outcome.started_at + outcome.duration
        unrecorded = self._unrecorded = self._unrecorded or _Unrecorded(since=ended)
        refused = not outcome.attempts
        unrecorded.refused += refused
        unrecorded.lost += not refused
        self._watcher.unrecorded(refused=refused)
