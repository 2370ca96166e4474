"""The thread that writes the trail: batches entries, and retries what could not be written.

Entries that come while it writes go into the next batch, so one `fsync` serves many requests.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, final

import msgspec

from icr_proxy.audit.anchor import AnchorFile
from icr_proxy.audit.records import Record, StopRecord, request_of
from icr_proxy.clock import stamp
from icr_proxy.observability.log import where
from icr_proxy.observability.outcome import Announcement, Outcome
from icr_proxy.query_redaction import QueryRedaction

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from icr_proxy.audit.chain import ChainHead
    from icr_proxy.audit.writer import TrailWriter
    from icr_proxy.config.models import AuditConfig

    Waiter = tuple[int, asyncio.Future[int | None]]  # index in a batch, and who waits for it

BATCH_LEAST = 512  # a batch takes further entries until it has so many
RETRY_SECONDS = 0.5
IDLE_SECONDS = 1.0


@final
class AwaitedEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry that somebody waits for.

    `durable` gets the sequence number when the record is as safe as `audit.fsync` says. Tests for
    this class compare `type(entry)`: `isinstance` takes three times as long if the answer is no.
    """

    what: Record | Outcome
    durable: asyncio.Future[int | None]
    announcement: Announcement | None = None
    """Of an intent: gets its number when it is written, even if nobody waits any more."""


Entry: TypeAlias = Record | Outcome | AwaitedEntry
"""A record to be written, or an outcome, which the thread turns into a record.

Most are outcomes for which nobody waits, and those go as they are.
"""


class WriteResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one attempt to write; without entries it tells an error, or a new head."""

    entries: Sequence[Record | Outcome] = ()
    awaited: Sequence[Waiter] = ()
    last: int = 0
    """Sequence number of the last of them; they follow one another."""
    head: ChainHead
    segment: str | None
    seconds: float = 0.0
    error: str | None = None
    anchor_error: str | None = None
    periodic: bool = False
    """Whether it is time to log the head."""


@dataclass(kw_only=True)
class TrailThread:
    """The writer thread; it calls `report` itself, so in this thread."""

    open_writer: Callable[[], TrailWriter]
    config: AuditConfig
    now: Callable[[], float]
    clock: Callable[[], float]
    report: Callable[[WriteResult], None]
    _queue: queue.SimpleQueue[Sequence[Entry]] = field(default_factory=queue.SimpleQueue)
    _halt: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the trail and start the thread."""
        self.writer = self.open_writer()
        self._must_publish_rewind = self.writer.rewind is not None
        anchor = self.config.anchor_file
        self._anchor = AnchorFile(anchor) if anchor is not None else None
        self._redact = QueryRedaction(self.config.redact_query)
        self._synced_at = self._published_at = self.clock()
        self._thread = threading.Thread(target=self._run, name="audit-trail", daemon=True)
        self._thread.start()

    def put(self, entries: Sequence[Entry]) -> None:
        """Queue entries."""
        self._queue.put(entries)

    def stop(self) -> None:
        """Write what is queued, as far as that works, and end the segment; it blocks."""
        self._halt.set()
        self._queue.put(())
        if self._thread is not None:
            self._thread.join()

    # -- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not (self._halt.is_set() and self._queue.empty()):
                # Not in a variable: it would keep the batch in memory until the next one comes.
                self._write(self._next_batch())
                self._sync_and_publish()
            with suppress(OSError):
                self.writer.append((StopRecord(time=stamp(self.now())),), sync=True)
        finally:
            self.writer.close()
            self._publish()

    def _next_batch(self) -> list[Entry]:
        """Wait for entries; return them with those that came meanwhile."""
        interval = self.config.fsync == "interval"
        patience = self.config.fsync_interval if interval else IDLE_SECONDS
        batch: list[Entry] = []
        with suppress(queue.Empty):
            batch += self._queue.get(timeout=min(patience, IDLE_SECONDS))
        while len(batch) < BATCH_LEAST and not self._queue.empty():  # nothing else takes entries
            batch += self._queue.get_nowait()
        return batch

    def _write(self, batch: list[Entry]) -> None:
        """Write a batch; an outcome tells the number of its intent, so the intent goes first."""
        for part in split_batch(batch):
            if not self._write_part(part):
                return

    def _write_part(self, part: list[Entry]) -> bool:
        """Write, and retry until it works; return False if a stop came first."""
        entries, awaited = split_awaited(part)
        records: list[Record] = []
        while entries:
            began = self.clock()
            try:
                records = records or self._records(entries)
                self.writer.append(records, sync=self.config.fsync == "always")
            except OSError as error:
                self.report(self._result(error=error.strerror or type(error).__name__))
            except Exception as error:  # noqa: BLE001  # a dead thread would record nothing more
                self.report(self._result(error=str(where(error))))
            else:
                seconds = self.clock() - began
                number_intents(part, last=self.writer.head.seq)
                self.report(self._result(entries=entries, awaited=awaited, seconds=seconds))
                if self._must_publish_rewind:
                    self._must_publish_rewind = False
                    self._publish(rewound=True)
                return True
            if self._halt.wait(RETRY_SECONDS):
                return False
        return True

    def _records(self, entries: Sequence[Record | Outcome]) -> list[Record]:
        redact = self._redact
        return [
            request_of(each, redact=redact) if isinstance(each, Outcome) else each
            for each in entries
        ]

    def _result(
        self,
        *,
        entries: Sequence[Record | Outcome] = (),
        awaited: Sequence[Waiter] = (),
        seconds: float = 0.0,
        error: str | None = None,
        periodic: bool = False,
    ) -> WriteResult:
        return WriteResult(
            entries=entries,
            awaited=awaited,
            last=self.writer.head.seq,
            head=self.writer.head if self.config.fsync == "never" else self.writer.synced,
            segment=self.writer.segment,
            seconds=seconds,
            error=error,
            periodic=periodic,
        )

    def _sync_and_publish(self) -> None:
        """Sync and publish the head, each when its interval is over."""
        now, config = self.clock(), self.config
        if config.fsync == "interval" and now - self._synced_at >= config.fsync_interval:
            self._synced_at = now
            try:
                self.writer.sync()
                self.report(self._result())
            except OSError as error:
                self.report(self._result(error=error.strerror or type(error).__name__))
        if now - self._published_at >= config.head_interval:
            self._published_at = now
            self._publish()

    def _publish(self, *, rewound: bool = False) -> None:
        """Write the head to the anchor file and to the log."""
        anchor_error = None
        if self._anchor is not None:
            try:
                self.writer.sync()  # or after a power cut the anchor would be ahead of the trail
                self._anchor.publish(
                    self.writer.synced,
                    file=self.writer.segment,
                    trail=self.writer.trail,
                    now=self.now(),
                    rewound=rewound,
                )
            except OSError as error:  # the trail itself is written
                anchor_error = error.strerror or type(error).__name__
        result = self._result(periodic=True)
        self.report(msgspec.structs.replace(result, anchor_error=anchor_error))


def split_batch(batch: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Split a batch before each outcome whose intent has no number yet.

    As a rule there is none: an intent is written before its request is sent. But a client may
    leave while the disk is slow, and with `on_failure: continue` nobody waits for a broken disk.
    """
    part: list[Entry] = []
    for entry in batch:
        what = entry.what if type(entry) is AwaitedEntry else entry
        if type(what) is Outcome and what.intent is not None and what.intent.seq is None and part:
            yield part
            part = []
        part.append(entry)
    if part:
        yield part


def number_intents(part: Sequence[Entry], *, last: int) -> None:
    """Give intents their numbers; `last` is the number of the last entry."""
    for seq, entry in enumerate(part, last - len(part) + 1):
        if type(entry) is AwaitedEntry and entry.announcement is not None:
            entry.announcement.seq = seq


def split_awaited(
    batch: Sequence[Entry],
) -> tuple[list[Record | Outcome], list[Waiter]]:
    """Separate entries from those who wait: consoles keep the entries for longer."""
    entries: list[Record | Outcome] = []
    awaited: list[Waiter] = []
    for entry in batch:
        if type(entry) is AwaitedEntry:
            awaited.append((len(entries), entry.durable))
            entries.append(entry.what)
        else:
            entries.append(entry)
    return entries, awaited
