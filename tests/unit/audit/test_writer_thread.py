from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from icr_proxy.audit.anchor import Rewind
from icr_proxy.audit.chain import ChainHead
from icr_proxy.audit.records import IntentRecord, Record, RequestRecord, StopRecord, intent_of
from icr_proxy.audit.writer import TrailWriter
from icr_proxy.audit.writer_thread import AwaitedEntry, TrailThread, WriteResult
from icr_proxy.config.models import AuditConfig
from icr_proxy.observability.outcome import Announcement
from icr_proxy.query_redaction import QueryRedaction
from tests.support.app_fixture import Clock
from tests.support.audit_fixture import journal_of, read_of

GUARD_SECONDS = 20.0
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FakeWriter(TrailWriter):
    """Writes into a list, and fails as a test says."""

    def __init__(self) -> None:
        self.head = self.synced = ChainHead()
        self.trail = "7" * 32
        self.rewind: Rewind | None = None
        self.missing_anchor: Path | None = None
        self.batches: list[list[Record]] = []
        self.failures: list[Exception] = []
        self.sync_failures: list[OSError] = []
        self.syncs: list[bool] = []
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    @property
    def segment(self) -> str:
        return "audit-1"

    def append(self, records: Sequence[Record], *, sync: bool) -> None:
        self.gate.wait(GUARD_SECONDS)
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(list(records))
        self.syncs.append(sync)
        self.head = ChainHead(self.head.seq + len(records), "a" * 64)
        if sync:
            self.synced = self.head

    def sync(self) -> None:
        if self.sync_failures:
            raise self.sync_failures.pop(0)
        self.synced = self.head

    def close(self) -> None:
        self.closed = True


class Stage:
    """A running thread, and what it has told."""

    def __init__(self, **settings: Any) -> None:
        self.writer = FakeWriter()
        self.told: list[WriteResult] = []
        self._heard = threading.Condition()
        self.clock = Clock()
        self.thread = TrailThread(
            open_writer=lambda: self.writer,
            config=AuditConfig(**settings),
            now=lambda: 0.0,
            clock=self.clock,
            report=self.tell,
        )

    def tell(self, landed: WriteResult) -> None:
        with self._heard:
            self.told.append(landed)
            self._heard.notify_all()

    def until(self, reached: Callable[[WriteResult], object]) -> WriteResult:
        """Wait until something was told."""
        with self._heard:
            assert self._heard.wait_for(
                lambda: any(reached(landed) for landed in self.told), GUARD_SECONDS
            )
            return next(landed for landed in self.told if reached(landed))


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
def test_records_are_written_in_order_and_told(fsync: str) -> None:
    scene = Stage(fsync=fsync)
    for number in range(1000):
        scene.thread.put([read_of(number)])
    scene.thread.start()
    scene.thread.stop()

    *written, last = (record for batch in scene.writer.batches for record in batch)
    assert written == [read_of(number) for number in range(1000)]
    assert isinstance(last, StopRecord)
    assert sum(len(landed.entries) for landed in scene.told) == 1000
    assert scene.writer.closed
    assert scene.writer.syncs[0] == (fsync == "always")


def test_what_gathers_while_it_writes_is_written_as_one() -> None:
    scene = Stage()
    scene.writer.gate.clear()
    scene.thread.start()
    for number in range(100):
        scene.thread.put([read_of(number)])
    scene.writer.gate.set()
    scene.thread.stop()

    assert len(scene.writer.batches) <= 3


def test_what_cannot_be_written_is_tried_again_and_nothing_is_lost() -> None:
    scene = Stage()
    scene.writer.failures = [FULL, RuntimeError("a mistake in here")]
    scene.thread.put([read_of(1)])
    scene.thread.start()

    scene.until(lambda landed: landed.entries)
    scene.thread.stop()

    errors = [landed.error for landed in scene.told if landed.error]
    assert errors[0] == "No space left on device"
    assert "RuntimeError" in errors[1]
    assert "a mistake" not in errors[1]
    assert scene.writer.batches[0] == [read_of(1)]


def test_a_stop_does_not_wait_for_a_disk_to_become_free() -> None:
    scene = Stage()
    scene.writer.failures = [FULL] * 1000
    scene.thread.put([read_of(1)])
    scene.thread.start()
    scene.until(lambda landed: landed.error)

    scene.thread.stop()

    assert scene.writer.closed
    assert scene.writer.batches == []


def test_records_are_forced_to_the_disk_at_an_interval() -> None:
    scene = Stage(fsync="interval", fsync_interval=0.01)
    scene.writer.sync_failures = [FULL]
    scene.thread.start()
    scene.thread.put([read_of(1)])
    scene.until(lambda landed: landed.entries)
    assert scene.told[-1].head.seq == 0

    scene.clock.at += 1
    scene.until(lambda landed: landed.error == "No space left on device")
    scene.clock.at += 1
    scene.until(lambda landed: landed.head.seq == 1)
    scene.thread.stop()


def test_without_forcing_the_head_is_what_was_written() -> None:
    scene = Stage(fsync="never")
    scene.thread.start()
    scene.thread.put([read_of(1)])

    assert scene.until(lambda landed: landed.entries).head.seq == 1
    scene.thread.stop()


def test_the_head_is_told_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    anchor = tmp_path / "anchor"
    scene = Stage(directory=tmp_path, anchor_file=anchor, head_interval=60.0)
    scene.thread.start()
    scene.thread.put([read_of(1)])
    scene.until(lambda landed: landed.entries)
    assert not anchor.exists()

    scene.clock.at += 61
    scene.thread.put([read_of(1)])
    assert scene.until(lambda landed: landed.periodic).anchor_error is None
    assert json.loads(anchor.read_text())["seq"] == 2
    scene.thread.stop()

    first, second = map(json.loads, anchor.read_text().splitlines())
    assert first["seq"] == 2
    assert second == {
        "seq": 3,
        "hash": "a" * 64,
        "file": "audit-1",
        "time": "1970-01-01T00:00:00.000+00:00",
        "trail": "7" * 32,
    }


async def test_an_outcome_tells_the_number_of_its_intent_though_both_wait_together() -> None:
    """With a broken disk and `on_failure: continue`, nobody waits for the intent."""
    scene = Stage()
    journal = journal_of(intent=Announcement())
    intent = intent_of(journal, redact=QueryRedaction(()), now=0.0)
    scene.thread.put(
        [
            read_of(1),
            AwaitedEntry(intent, asyncio.get_running_loop().create_future(), journal.intent),
            journal.close(at=0.5),
            read_of(2),
        ]
    )
    scene.thread.start()
    scene.thread.stop()

    first, second = scene.writer.batches[:2]
    assert [type(each) for each in first] == [RequestRecord, IntentRecord]
    assert isinstance(second[0], RequestRecord)
    assert (second[0].changes_state, second[0].intent) == (True, 2)


def test_an_anchor_that_cannot_be_written_is_told_and_harms_nothing(tmp_path: Path) -> None:
    scene = Stage(directory=tmp_path, anchor_file=tmp_path / "gone" / "anchor")
    scene.thread.start()
    scene.thread.put([read_of(1)])
    scene.thread.stop()

    assert scene.told[-1].anchor_error == "No such file or directory"
    assert scene.told[-1].error is None


def test_to_stop_what_was_never_started_is_fine() -> None:
    Stage().thread.stop()


async def test_who_waits_is_not_touched_by_the_thread() -> None:
    """Futures belong to the event loop; the thread only hands them back."""
    durable = asyncio.get_running_loop().create_future()
    scene = Stage()
    scene.thread.start()
    scene.thread.put([read_of(1), AwaitedEntry(read_of(2), durable)])

    landed = await asyncio.to_thread(scene.until, lambda landed: landed.entries)
    await asyncio.to_thread(scene.thread.stop)

    assert landed.entries == [read_of(1), read_of(2)]
    [(place, who)] = landed.awaited
    assert place == 1
    assert who is durable
    assert not durable.done()
