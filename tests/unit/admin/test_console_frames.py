import json
from typing import Any

import pytest

from icr_proxy.admin.console_frames import (
    INSTALLATIONS_MOST,
    RING,
    ROWS_MOST,
    FrameBuffer,
    InstallationTallies,
    RequestSample,
    console_row,
    event,
)
from tests.support.fakes import outcome


def ids(sample: RequestSample) -> tuple[list[str], int]:
    rows, left_out = sample.drain()
    return [row.request_id for row in rows], left_out


def test_an_event_has_its_name_and_one_line_of_data() -> None:
    """A line break in the data would begin another field; JSON writes it as an escape."""
    data = event("frame", {"path": "/a\n\ndata: x"})

    assert data == b'event: frame\ndata: {"path":"/a\\n\\ndata: x"}\n\n'


# -- a sample of the rows -------------------------------------------------------------------------


def test_a_few_requests_are_all_shown_in_their_order() -> None:
    sample = RequestSample()
    for number in range(3):
        sample.add(outcome(request_id=str(number), status=500 if number == 1 else 200))

    assert ids(sample) == (["0", "1", "2"], 0)


def test_of_many_requests_the_last_are_shown_and_the_others_counted() -> None:
    sample = RequestSample()
    for number in range(1000):
        sample.add(outcome(request_id=str(number)))

    shown_ids, left_out = ids(sample)

    assert shown_ids == [str(number) for number in range(1000 - ROWS_MOST, 1000)]
    assert left_out == 1000 - ROWS_MOST


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"status": 503}, id="a failure"),
        pytest.param({"changes_state": True, "method": "POST"}, id="a write"),
        pytest.param({"status": 403, "origin": "proxy", "code": "policy-denied"}, id="a refusal"),
    ],
)
def test_what_is_worth_a_look_is_shown_before_the_rest(facts: dict[str, Any]) -> None:
    sample = RequestSample()
    sample.add(outcome(request_id="telling", **facts))
    for number in range(1000):
        sample.add(outcome(request_id=str(number)))

    shown_ids, left_out = ids(sample)

    assert shown_ids[0] == "telling"
    assert (len(shown_ids), left_out) == (ROWS_MOST, 1001 - ROWS_MOST)


def test_a_storm_of_failures_is_bounded_as_well() -> None:
    sample = RequestSample()
    for number in range(1000):
        sample.add(outcome(request_id=str(number), status=503))
        sample.add(outcome(request_id=f"ok-{number}"))

    shown_ids, left_out = ids(sample)

    assert shown_ids == [str(number) for number in range(1000 - ROWS_MOST, 1000)]
    assert left_out == 2000 - ROWS_MOST


def test_what_was_taken_is_not_shown_again() -> None:
    sample = RequestSample()
    sample.add(outcome())
    sample.drain()

    assert ids(sample) == ([], 0)


def test_a_credential_in_a_path_is_not_shown() -> None:
    row = console_row(outcome(path="/projects/crs_planted/x"))

    assert row.path == "/projects/***/x"


def test_the_query_which_the_audit_trail_keeps_is_not_shown() -> None:
    told = event("frame", [console_row(outcome(target="/projects?key=planted", path="/projects"))])

    assert b"/projects" in told
    assert b"planted" not in told


# -- tallies --------------------------------------------------------------------------------------


def test_an_installation_is_counted_with_its_last_error() -> None:
    tallies = InstallationTallies()
    tallies.add(outcome(installation="in-1"))
    tallies.add(outcome(installation="in-1", status=404, started_at=5.0, duration=1.0))
    tallies.add(
        outcome(installation="in-1", status=403, origin="proxy", code="policy-denied", started_at=7)
    )
    tallies.add(outcome(installation="in-2"))

    told = json.loads(event("x", tallies.all()).partition(b"data: ")[2])

    assert told["in-1"] == {
        "requests": 3, "errors": 2, "last_error": "policy-denied", "last_error_at": 7.02,
    }  # fmt: skip
    assert told["in-2"]["last_error"] is None


def test_an_error_without_a_code_is_told_by_its_status() -> None:
    tallies = InstallationTallies()
    tallies.add(outcome(status=404))

    assert tallies.all()["in-1"].last_error == "404"


def test_a_request_for_nobody_is_in_no_tally() -> None:
    tallies = InstallationTallies()
    tallies.add(outcome(installation=None))

    assert tallies.all() == {}


def test_only_tallies_that_changed_are_told_again() -> None:
    tallies = InstallationTallies()
    tallies.add(outcome(installation="in-1"))
    tallies.add(outcome(installation="in-2"))
    tallies.changes()
    tallies.add(outcome(installation="in-2"))

    assert list(tallies.changes()) == ["in-2"]
    assert tallies.changes() == {}


def test_invented_installations_push_out_the_quietest_and_use_no_memory_without_end() -> None:
    tallies = InstallationTallies()
    tallies.add(outcome(installation="busy"))
    for number in range(INSTALLATIONS_MOST * 2):
        tallies.add(outcome(installation=f"in-{number}"))
        tallies.add(outcome(installation="busy"))

    assert len(tallies.all()) == INSTALLATIONS_MOST
    assert tallies.all()["busy"].requests == INSTALLATIONS_MOST * 2 + 1
    assert len(tallies.changes()) == INSTALLATIONS_MOST


def test_a_look_at_all_tallies_does_not_change_which_leaves_first() -> None:
    """An `LRUCache` counts each look-up as use, and each new console looks at all tallies."""
    tallies = InstallationTallies()
    for number in (*range(INSTALLATIONS_MOST), 0):
        tallies.add(outcome(installation=f"in-{number}"))

    tallies.all()
    tallies.add(outcome(installation="new"))

    assert "in-0" in tallies.all()
    assert "in-1" not in tallies.all()


# -- the ring of a slow reader --------------------------------------------------------------------


def test_all_that_waits_is_one_piece() -> None:
    ring = FrameBuffer()
    ring.put(b"a", requests=1)
    ring.put(b"b", requests=2)

    assert (ring.drain(), ring.drain(), ring.drain_lost()) == (b"ab", b"", (0, 0))


def test_a_full_ring_loses_its_oldest_frame_and_counts_what_it_told_of() -> None:
    ring = FrameBuffer()
    for number in range(RING + 2):
        ring.put(b"%d," % number, requests=number + 1)

    assert ring.drain_lost() == (2, 3)
    assert ring.drain().startswith(b"2,3,")
    assert ring.drain_lost() == (0, 0)
