import random
from collections import Counter

import pytest

from icr_proxy.admin.console_timeline import (
    CLIENT,
    FAILED,
    LAST,
    OK,
    REFUSED,
    SMALLEST,
    SPAN,
    Timeline,
    bucket_of,
    ending_of,
    percentile,
    seconds_of,
)
from tests.support.fakes import outcome

NOW = 1_700_000_000


@pytest.mark.parametrize(
    ("facts", "ending"),
    [
        pytest.param({"status": 200}, OK, id="well"),
        pytest.param({"status": 304}, OK, id="a redirect is no error"),
        pytest.param({"status": 404}, CLIENT, id="the API's 4xx"),
        pytest.param({"status": 503}, FAILED, id="the API's 5xx"),
        pytest.param(
            {"status": 403, "origin": "proxy", "code": "policy-denied"}, REFUSED, id="refused here"
        ),
        pytest.param(
            {"status": 502, "origin": "proxy", "code": "upstream-broken"}, FAILED, id="no answer"
        ),
        pytest.param({"status": 200, "code": "upstream-broken"}, FAILED, id="broken off half-way"),
        pytest.param({"status": 0, "code": "internal"}, FAILED, id="nothing was answered"),
        pytest.param(
            {"status": 499, "origin": "proxy", "code": "caller-gone"}, CLIENT, id="the caller left"
        ),
        pytest.param({"status": 204, "origin": "proxy"}, OK, id="a pre-flight answered here"),
    ],
)
def test_a_request_ends_in_one_of_four_ways(facts: dict[str, object], ending: int) -> None:
    assert ending_of(outcome(**facts)) == ending


def test_a_request_counts_in_the_second_in_which_it_ended() -> None:
    timeline = Timeline()

    timeline.add(outcome(started_at=NOW + 0.9, duration=2.2))

    ((at, ok, client, refused, failed, p50, p90, p99),) = timeline.rows(now=NOW + 4)
    assert (at, ok, client, refused, failed) == (NOW + 3, 1, 0, 0, 0)
    assert p50 == p90 == p99 == pytest.approx(2200, rel=0.1)


def test_nothing_is_older_than_five_minutes() -> None:
    timeline = Timeline()
    for second in range(SPAN + 50):
        timeline.add(outcome(started_at=NOW + second + 0.1))

    rows = timeline.rows(now=NOW + SPAN + 49.5)

    assert [row[0] for row in rows] == list(range(NOW + 50, NOW + SPAN + 50))


def test_a_second_without_requests_has_no_row() -> None:
    timeline = Timeline()
    for second in (0, 5):
        timeline.add(outcome(started_at=NOW + second))

    assert [row[0] for row in timeline.rows(now=NOW + 6)] == [NOW, NOW + 5]


def test_a_clock_that_goes_back_costs_a_row_and_nothing_else() -> None:
    timeline = Timeline()
    timeline.add(outcome(started_at=NOW + SPAN))
    timeline.add(outcome(started_at=NOW))

    assert timeline.rows(now=NOW + 1) == []
    assert [row[0] for row in timeline.rows(now=NOW + SPAN + 1)] == [NOW + SPAN]


def test_only_what_has_changed_is_told_again() -> None:
    timeline = Timeline()
    timeline.add(outcome(started_at=NOW))
    timeline.add(outcome(started_at=NOW + 1))

    first = timeline.changes()
    timeline.add(outcome(started_at=NOW + 1.5))
    second = timeline.changes()

    assert [(row[0], row[1]) for row in first] == [(NOW, 1), (NOW + 1, 1)]
    assert [(row[0], row[1]) for row in second] == [(NOW + 1, 2)]
    assert timeline.changes() == []


def test_a_change_whose_second_has_left_the_ring_is_not_told() -> None:
    timeline = Timeline()
    timeline.add(outcome(started_at=NOW))
    timeline.add(outcome(started_at=NOW + SPAN))

    assert [row[0] for row in timeline.changes()] == [NOW + SPAN]


def test_the_last_minute_is_counted_as_one() -> None:
    timeline = Timeline()
    for second in range(120):
        timeline.add(outcome(started_at=NOW + second, duration=0.01))
        timeline.add(outcome(started_at=NOW + second, duration=0.5, status=503))

    length, ok, client, refused, failed, p50, _, p99 = timeline.minute(now=NOW + 119.9)

    assert (length, ok, client, refused, failed) == (60, 60, 0, 0, 60)
    assert p50 == pytest.approx(10, rel=0.1)
    assert p99 == pytest.approx(500, rel=0.1)


def test_of_an_idle_minute_there_is_no_percentile() -> None:
    assert Timeline().minute(now=NOW) == (60, 0, 0, 0, 0, None, None, None)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        pytest.param(0.0, 0, id="no time at all"),
        pytest.param(-1.0, 0, id="a clock that went back"),
        pytest.param(SMALLEST, 0, id="the smallest"),
        pytest.param(SMALLEST * 1.01, 1, id="just above it"),
        pytest.param(SMALLEST * 2.01, 5, id="twice as much is four buckets on"),
        pytest.param(1e9, LAST, id="longer than any request"),
    ],
)
def test_a_duration_has_its_bucket(seconds: float, bucket: int) -> None:
    assert bucket_of(seconds) == bucket


@pytest.mark.parametrize("seconds", [0.00011, 0.0007, 0.013, 0.25, 1.0, 59.9, 600.0])
def test_what_is_read_off_is_wrong_by_nine_percent_at_most(seconds: float) -> None:
    assert seconds_of(bucket_of(seconds)) == pytest.approx(seconds, rel=0.0906)


def test_of_nothing_there_is_no_percentile() -> None:
    assert percentile({}, 0.5) is None


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_of_one_request_every_percentile_is_that_one(share: float) -> None:
    assert percentile({20: 1}, share) == seconds_of(20)


@pytest.mark.parametrize(
    ("share", "bucket"), [(0.5, 10), (0.9, 10), (0.901, 30), (0.99, 30), (0.991, 50)]
)
def test_a_percentile_is_what_that_share_did_not_exceed(share: float, bucket: int) -> None:
    assert percentile({50: 10, 10: 900, 30: 90}, share) == seconds_of(bucket)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_percentiles_are_close_to_those_of_the_durations_themselves(share: float) -> None:
    chance = random.Random(7)
    durations = sorted(chance.lognormvariate(-4, 1.5) for _ in range(5000))
    counts = Counter(bucket_of(each) for each in durations)

    found = percentile(counts, share)

    assert found == pytest.approx(durations[int(len(durations) * share) - 1], rel=0.1)
