import random
from collections import Counter

import pytest

from icr_proxy.admin.console_timeline import LAST, SMALLEST, bucket_of, percentile, seconds_of


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
