from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.clock import milliseconds, stamp


def as_the_library_writes(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def test_a_moment_is_written_in_utc() -> None:
    assert stamp(1.5) == "1970-01-01T00:00:01.500+00:00"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(0.0, "1970-01-01T00:00:00.000+00:00", id="the first"),
        pytest.param(1_700_000_000.129, "2023-11-14T22:13:20.129+00:00", id="a binary fraction"),
        pytest.param(1_700_000_000.9999999, "2023-11-14T22:13:21.000+00:00", id="rounds up"),
        pytest.param(-0.5, "1969-12-31T23:59:59.500+00:00", id="before all clocks"),
    ],
)
def test_a_moment_is_written_to_the_millisecond(seconds: float, text: str) -> None:
    assert stamp(seconds) == text


@given(seconds=st.lists(st.floats(-1e9, 9e9), min_size=1, max_size=4))
def test_a_moment_does_not_depend_on_the_one_before(seconds: list[float]) -> None:
    assert [stamp(each) for each in seconds] == [as_the_library_writes(each) for each in seconds]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, 0.0), (0.0123456, 12.346), (1.0000004, 1000.0), (0.0000005, 0.001)],
)
def test_a_duration_is_given_to_the_microsecond(seconds: float, shown: float) -> None:
    assert milliseconds(seconds) == shown
