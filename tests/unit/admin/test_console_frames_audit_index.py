from __future__ import annotations

from icr_proxy.admin.console_frames import OWED_MOST, RECORDS_KEPT, AuditIndex
from icr_proxy.audit.records import StopRecord
from icr_proxy.observability.outcome import Outcome
from tests.support.audit_fixture import outcome_of


def written(recorded: AuditIndex, *outcomes: Outcome, last: int, most: int = RECORDS_KEPT) -> None:
    recorded.add(outcomes, last=last, most=most)


def test_without_a_trail_nothing_is_known_and_nothing_owed() -> None:
    recorded = AuditIndex()

    assert recorded.of([outcome_of()]) == [None]
    assert recorded.pending() == []


def test_the_records_of_a_batch_follow_one_another() -> None:
    recorded = AuditIndex()
    first, second = outcome_of(), outcome_of()
    recorded.add(
        [first, StopRecord(time=""), second],
        last=9,
        most=RECORDS_KEPT,
    )

    assert recorded.of([second, first]) == [9, 7]


def test_what_was_shown_too_early_is_told_later_and_once() -> None:
    recorded = AuditIndex()
    written(recorded, outcome_of(), last=1)
    early, later = outcome_of(request_id="early"), outcome_of(request_id="later")

    assert recorded.of([early, later]) == [None, None]
    assert recorded.pending() == []
    written(recorded, early, last=2)

    assert recorded.pending() == [("early", early.started_at, 2)]
    assert recorded.pending() == []
    written(recorded, later, last=3)
    assert recorded.pending() == [("later", later.started_at, 3)]


def test_two_requests_of_one_id_are_told_apart() -> None:
    """Callers choose their ids, and some choose the same one always."""
    recorded = AuditIndex()
    one, other = outcome_of(), outcome_of()
    written(recorded, one, last=1)
    written(recorded, other, last=2)

    assert recorded.of([one, other]) == [1, 2]


def test_what_is_kept_is_bounded() -> None:
    recorded = AuditIndex()
    old, new = outcome_of(), outcome_of()
    written(recorded, old, last=1, most=1)
    written(recorded, new, last=2, most=1)

    assert recorded.of([old, new]) == [None, 2]


def test_an_attempt_that_wrote_nothing_is_no_batch() -> None:
    recorded = AuditIndex()
    recorded.add([], last=5, most=RECORDS_KEPT)

    assert recorded.of([outcome_of()]) == [None]
    assert recorded.pending() == []


def test_what_is_owed_is_bounded_and_forgotten_when_nobody_looks() -> None:
    recorded = AuditIndex()
    written(recorded, outcome_of(), last=1)
    many = [outcome_of() for _ in range(OWED_MOST + 1)]
    recorded.of(many)
    written(recorded, *many, last=OWED_MOST + 2)

    assert len(recorded.pending()) == OWED_MOST
    recorded.of([outcome_of()])
    recorded.rest()
    assert recorded.pending() == []


def test_of_a_large_batch_the_newest_are_kept() -> None:
    recorded = AuditIndex()
    outcomes = [outcome_of() for _ in range(5)]
    written(recorded, *outcomes[:1], last=1, most=3)
    written(recorded, *outcomes[1:], last=5, most=3)

    assert recorded.of(outcomes) == [None, None, 3, 4, 5]
