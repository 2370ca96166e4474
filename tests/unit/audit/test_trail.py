from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from icr_proxy.audit.chain import ChainHead
from icr_proxy.audit.records import GapRecord, IntentRecord, Record, StopRecord
from icr_proxy.audit.trail import DurableWaits, Trail
from icr_proxy.audit.writer_thread import Entry, WriteResult, number_intents, split_awaited
from icr_proxy.config.models import AuditConfig
from icr_proxy.errors import AuditUnavailableError
from icr_proxy.observability.outcome import Outcome
from tests.support.audit_fixture import journal_of, outcome_of

AT_ONCE = 0.01


@dataclass
class Stage:
    """A trail whose records go nowhere until a test says so."""

    trail: Trail
    entries: list[Entry]
    written: int = 0
    missed: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Let what has gathered be written."""
        entries, awaited = split_awaited(self.entries)
        self.written += len(entries)
        number_intents(self.entries, last=self.written)
        self.entries.clear()
        self.trail.on_write_result(
            WriteResult(
                entries=entries, awaited=awaited, last=self.written, head=ChainHead(), segment=None
            )
        )

    def fail(self) -> None:
        """Let an attempt fail."""
        self.trail.on_write_result(WriteResult(head=ChainHead(), segment=None, error="disk full"))

    @property
    def records(self) -> list[Record | Outcome]:
        return split_awaited(self.entries)[0]


def stage(**settings: Any) -> Stage:
    entries: list[Entry] = []
    missed: list[str] = []
    config = AuditConfig(**{"max_wait": AT_ONCE} | settings)
    trail = Trail(config=config, put=entries.append, on_unrecorded=missed.append, now=lambda: 0.0)
    return Stage(trail, entries, missed=missed)


async def test_a_read_leaves_one_record_and_waits_for_nothing() -> None:
    scene = stage()
    journal = journal_of(changes_state=False)

    await scene.trail.reserve(journal)
    outcome = outcome_of(changes_state=False)
    durable = scene.trail.record(outcome, reserved=journal.reserved_records)

    assert durable is None
    assert scene.records == [outcome]


async def test_an_intent_is_written_before_the_request_is_sent() -> None:
    scene = stage(max_wait=5.0)
    journal = journal_of()
    await scene.trail.reserve(journal)

    announcing = asyncio.ensure_future(scene.trail.announce(journal))
    await asyncio.sleep(0)
    assert [type(record) for record in scene.records] == [IntentRecord]
    assert not announcing.done()
    scene.write()
    await announcing
    assert journal.intent_seq == 1


@pytest.mark.parametrize(
    ("fsync", "attempts", "waits"),
    [("always", 1, True), ("always", 0, False), ("interval", 1, False), ("never", 1, False)],
)
async def test_a_connection_waits_for_the_outcome_of_what_was_sent_if_that_is_promised(
    fsync: str,
    attempts: int,
    waits: bool,  # noqa: FBT001
) -> None:
    scene = stage(fsync=fsync, max_wait=60.0)

    durable = scene.trail.record(outcome_of(attempts=attempts), reserved=0)
    scene.write()

    assert (durable is not None) == waits
    assert durable is None or await durable == 1


async def test_a_connection_does_not_wait_for_ever() -> None:
    scene = stage()

    durable = scene.trail.record(outcome_of(), reserved=0)

    assert durable is not None
    assert await durable is None
    scene.write()  # which is too late, and harms nothing


async def test_an_intent_gets_its_number_though_its_caller_has_left() -> None:
    scene = stage(max_wait=60.0)
    journal = journal_of()
    await scene.trail.reserve(journal)
    announcing = asyncio.ensure_future(scene.trail.announce(journal))
    await asyncio.sleep(0)

    announcing.cancel()
    await asyncio.wait((announcing,))
    scene.write()

    assert announcing.cancelled()
    assert journal.intent_seq == 1


async def test_without_room_a_request_waits_and_then_goes_on() -> None:
    scene = stage(queue=2, max_wait=5.0)
    for _ in range(2):
        scene.trail.record(outcome_of(), reserved=0)
    journal = journal_of()

    admitting = asyncio.ensure_future(scene.trail.reserve(journal))
    await asyncio.sleep(0)
    assert not admitting.done()
    scene.write()
    await admitting

    assert journal.reserved_records == 2


async def test_without_room_in_time_a_request_is_refused() -> None:
    scene = stage(queue=2)
    scene.trail.record(outcome_of(), reserved=0)

    with pytest.raises(AuditUnavailableError, match="nothing was sent"):
        await scene.trail.reserve(journal_of())


async def test_places_are_kept_for_what_a_request_will_leave_behind() -> None:
    scene = stage(queue=3)
    journal = journal_of()
    await scene.trail.reserve(journal)

    with pytest.raises(AuditUnavailableError):
        await scene.trail.reserve(journal_of())
    scene.trail.record(
        outcome_of(attempts=0), reserved=journal.reserved_records
    )  # its intent never came
    scene.write()
    await scene.trail.reserve(journal_of())


async def test_while_nothing_can_be_written_every_request_is_refused() -> None:
    scene = stage()
    scene.fail()

    with pytest.raises(AuditUnavailableError):
        await scene.trail.reserve(journal_of(changes_state=False))
    scene.write()
    await scene.trail.reserve(journal_of())


async def test_an_intent_that_is_not_written_in_time_stops_the_request() -> None:
    scene = stage()
    journal = journal_of()
    await scene.trail.reserve(journal)

    with pytest.raises(AuditUnavailableError):
        await scene.trail.announce(journal)


async def test_by_choice_requests_go_on_while_nothing_can_be_written() -> None:
    scene = stage(on_failure="continue", max_wait=60.0)
    scene.fail()
    journal = journal_of()

    async with asyncio.timeout(5):
        await scene.trail.reserve(journal)
        await scene.trail.announce(journal)

    assert journal.reserved_records == 1


async def test_what_there_was_no_room_for_is_counted_and_told_in_the_trail() -> None:
    scene = stage(on_failure="continue", queue=2, max_wait=60.0)
    for _ in range(2):
        scene.trail.record(outcome_of(), reserved=0)
    scene.fail()
    journal = journal_of()

    async with asyncio.timeout(5):
        await scene.trail.reserve(journal)
        await scene.trail.announce(journal)
    scene.trail.record(outcome_of(attempts=1), reserved=journal.reserved_records)
    scene.trail.record(outcome_of(attempts=0), reserved=0)
    assert scene.missed == ["lost", "refused"]
    scene.write()

    [gap] = scene.records
    assert isinstance(gap, GapRecord)
    assert (gap.lost, gap.refused, gap.since) == (1, 1, "2026-09-21T14:13:20.500+00:00")
    scene.write()
    assert scene.records == []


async def test_with_room_that_does_not_come_a_request_goes_on_unrecorded_by_choice() -> None:
    scene = stage(on_failure="continue", queue=2)
    scene.trail.record(outcome_of(), reserved=0)
    journal = journal_of()

    await scene.trail.reserve(journal)

    assert journal.reserved_records == 0


async def test_an_intent_that_is_late_does_not_stop_a_request_by_choice() -> None:
    scene = stage(on_failure="continue")
    journal = journal_of()
    await scene.trail.reserve(journal)

    await scene.trail.announce(journal)

    assert [type(record) for record in scene.records] == [IntentRecord]


async def test_there_is_always_room_for_what_happens_to_the_proxy_itself() -> None:
    scene = stage(queue=2)
    for _ in range(2):
        scene.trail.record(outcome_of(), reserved=0)

    scene.trail.record_event(StopRecord(time=""))

    assert len(scene.entries) == 3
    scene.write()
    assert scene.trail.queued == 0


def test_bodies_are_hashed_only_if_asked_for() -> None:
    assert stage().trail.new_digest() is None
    digest = stage(body_digests=True).trail.new_digest()
    assert digest is not None
    assert digest.name == "sha256"


GUARD_SECONDS = 20.0


async def test_what_takes_too_long_is_given_up_in_order() -> None:
    waits = DurableWaits(0.01)
    first, second = waits.start(), waits.start()

    async with asyncio.timeout(GUARD_SECONDS):
        assert await second is None
    assert first.result() is None


async def test_what_is_there_in_time_gets_its_number() -> None:
    waits = DurableWaits(60.0)
    durable = waits.start()

    durable.set_result(7)
    waits.drop_resolved()

    assert await durable == 7


async def test_one_timer_serves_all_and_goes_on_with_those_that_came_later() -> None:
    waits = DurableWaits(0.05)
    early = waits.start()
    await asyncio.sleep(0.02)
    late = waits.start()
    early.set_result(1)

    async with asyncio.timeout(GUARD_SECONDS):
        assert await late is None


async def test_whoever_has_left_is_passed_over() -> None:
    waits = DurableWaits(0.01)
    first, gone, last = waits.start(), waits.start(), waits.start()
    gone.cancel()

    async with asyncio.timeout(GUARD_SECONDS):
        assert (await first, await last) == (None, None)
    assert gone.cancelled()
