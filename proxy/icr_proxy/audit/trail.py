"""The audit trail as requests use it: they reserve room, and the thread writes their records.

The promise, whatever `audit.fsync` says: the intent of a request that changes state is in the file
before the request is sent, so killing the process hides nothing. With `always` it is on the disk by
then, and the next request of the same connection waits until the outcome is on the disk, too. If
records cannot be written, requests are refused, or go on and are counted (`on_failure`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING

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

LINGER_SECONDS = 0.02  # so long a record for which nobody waits may wait for others
BATCH_MOST = 512


class WriteBatcher:
    """Batches entries for the writer thread, in their order; lives in the event loop.

    To wake the thread costs several times what a record does, and each time it runs it takes the
    interpreter from the loop. So records for which nobody waits are collected for a moment.
    Records for which requests wait go at the end of the loop's turn, with all others of the turn.
    """

    def __init__(self, put: Callable[[Sequence[Entry]], None]) -> None:
        """Pass batches to `put`, which must not block."""
        self._put = put
        self._batch: list[Entry] = []
        self._is_scheduled = False
        self._is_timed = False

    def add(self, entry: Entry) -> None:
        """Add an entry; it goes at the end of this turn if somebody waits for it, else soon."""
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
"""The sequence number of a record, once the record is durable; `None` after the time-out."""


class DurableWaits:
    """Futures resolved when a record is durable; all share one time-out timer.

    A timer for each would cost more than the record. All may wait equally long, so the timer is
    always for the oldest.
    """

    def __init__(self, seconds: float) -> None:
        """Resolve each future after so many seconds at the latest."""
        self._seconds = seconds
        self._waiting: deque[tuple[float, Durable]] = deque()
        self._is_timed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> Durable:
        """Return a new future."""
        loop = self._loop
        if loop is None:  # each call of `get_running_loop` is a system call
            loop = self._loop = asyncio.get_running_loop()
        durable: Durable = loop.create_future()
        self._waiting.append((loop.time() + self._seconds, durable))
        if not self._is_timed:
            self._is_timed = True
            loop.call_later(self._seconds, self._expire)
        return durable

    def drop_resolved(self) -> None:
        """Drop the oldest futures that are resolved."""
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()

    def _expire(self) -> None:
        """Resolve the futures whose time is over, and set the timer for the next one."""
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
        on_unrecorded: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        """Record as `config` says; `put` takes the entries in their order.

        `on_unrecorded` hears of each request without a record whether it was `refused` or `lost`.
        """
        self._config = config
        self._refuses = config.on_failure == "refuse"
        self.new_digest: Callable[[], Digest | None] = (
            hashlib.sha256 if config.body_digests else NoneType
        )
        """Makes the hash of a body, or `None` if bodies are not hashed."""
        self._redact = QueryRedaction(config.redact_query)
        self._send = put
        self._on_unrecorded = on_unrecorded
        self._now = now
        self._room_changed: asyncio.Event | None = None
        self._waits = DurableWaits(config.max_wait)
        self._reserved = 0
        self._queued = 0
        self._unrecorded: _Unrecorded | None = None
        self._is_writable = True

    @property
    def queued(self) -> int:
        """The number of records that wait to be written."""
        return self._queued

    # -- for requests ------------------------------------------------------------------------------

    async def reserve(self, journal: Journal) -> None:
        """Reserve room for the records of this request.

        Raises:
            AuditUnavailableError: there is no room in time, and no request may go unrecorded.
        """
        count = WRITE_RECORDS if journal.changes_state else READ_RECORDS
        if not self._has_room(count):
            await self._wait_for_room(count)
            if not self._has_room(count):  # only if requests go on unrecorded
                return
        self._reserved += count
        journal.reserved_records = count

    async def announce(self, journal: Journal) -> None:
        """Return when the intent is as safe as `fsync` says; then the request may be sent.

        Raises:
            AuditUnavailableError: it is not safe in time, and no request may go unrecorded.
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
        """Record the outcome; return what to await before the connection serves the next request.

        The outcome is frozen, so the thread makes the record of it.
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
        """Record an event of the proxy itself; there is always room for that."""
        return self._put_and_wait(record)

    # -- from the thread --------------------------------------------------------------------------

    def on_write_result(self, result: WriteResult) -> None:
        """Take the result of a write: records are durable, or could not be written for now."""
        self._is_writable = result.error is None
        self._queued -= len(result.entries)
        first = result.last - len(result.entries) + 1
        for place, durable in result.awaited:
            if not durable.done():
                durable.set_result(first + place)
        self._waits.drop_resolved()
        unrecorded = self._unrecorded
        if unrecorded is not None and self._is_writable:
            self._unrecorded = None
            now, since = stamp(self._now()), stamp(unrecorded.since)
            lost, refused = unrecorded.lost, unrecorded.refused
            self._put(GapRecord(time=now, since=since, lost=lost, refused=refused))
        if self._room_changed is not None:
            self._room_changed.set()
            self._room_changed = None

    # -- room -------------------------------------------------------------------------------------

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
        self._on_unrecorded("refused" if refused else "lost")
