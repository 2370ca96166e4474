import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.credentials.app_client import http_date, learn_skew, measure_skew

NOW = 1_700_000_000.0


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize(
    "text",
    [
        b"Tue, 14 Nov 2023 22:13:20 GMT",
        b"Tue, 14 Nov 2023 22:13:20 -0000",
        b"Tue, 14 Nov 2023 22:13:20",
        b"Tue Nov 14 22:13:20 2023",
        b"Tuesday, 14-Nov-23 22:13:20 GMT",
    ],
    ids=["IMF", "zone unknown", "no zone", "asctime", "RFC 850"],
)
def test_dates_are_read_in_utc_wherever_we_are(text: bytes) -> None:
    assert http_date(text) == NOW


@given(value=st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_a_date_or_none(value: bytes) -> None:
    assert isinstance(http_date(value), float | None)


@pytest.mark.parametrize(
    ("date", "asked_at", "answered_at", "skew"),
    [
        (0, 0.0, 0.0, 0),
        (0, 0.9, 0.99, 0),
        (0, 1.4, 1.4, 0),
        (1, 0.6, 0.7, 0),
        (3, 0.0, 0.0, 3.5),
        (0, 0.0, 8.0, 0),
        (8, 0.0, 8.0, 0),
        (100, 0.0, 8.0, 96.5),
        (100, 8.0, 0.0, 96.5),
    ],
    ids=[
        "none", "late in a second", "noise behind", "noise ahead", "ahead", "slow answer",
        "slow question", "slow and ahead", "clock set back meanwhile",
    ],
)  # fmt: skip
def test_what_can_be_noise_is_no_skew(
    date: float, asked_at: float, answered_at: float, skew: float
) -> None:
    assert measure_skew(date, asked_at=asked_at, answered_at=answered_at) == skew


@pytest.mark.parametrize(
    ("date", "skew"),
    [
        (formatdate(NOW, usegmt=True), 0.0),
        (formatdate(NOW + 120, usegmt=True), 120.5),
        (formatdate(NOW - 86400, usegmt=True), -86399.5),
        (formatdate(NOW - 365 * 86400, usegmt=True), -365 * 86400 + 0.5),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("today", None),
    ],
    ids=["none", "ahead", "a day", "a year", "1970", "9999", "words"],
)
def test_an_absurd_date_is_no_date(date: str, skew: float | None) -> None:
    headers = [(b"Server", b"x"), (b"dAtE", date.encode())]

    assert learn_skew(headers, asked_at=NOW, answered_at=NOW) == skew


def test_without_a_date_nothing_is_learnt() -> None:
    assert learn_skew([(b"Server", b"x")], asked_at=NOW, answered_at=NOW) is None
