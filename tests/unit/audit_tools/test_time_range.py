"""What `--since` and `--until` understand, at 14:30 UTC on a Monday."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from icr_proxy.audit_tools.time_range import read_moment

NOW = datetime(2026, 11, 30, 14, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2026-11-30T14:30:00"),
        ("today", "2026-11-30T00:00:00"),
        ("yesterday", "2026-11-29T00:00:00"),
        ("Yesterday", "2026-11-29T00:00:00"),
        (" yesterday ", "2026-11-29T00:00:00"),
        ("yesterday 10:00", "2026-11-29T10:00:00"),
        ("yesterday at 9:05", "2026-11-29T09:05:00"),
        ("today 10:00:30 UTC", "2026-11-30T10:00:30"),
        ("tomorrow", "2026-12-01T00:00:00"),
        ("sunday", "2026-11-29T00:00:00"),
        ("monday", "2026-11-23T00:00:00"),
        ("last Monday", "2026-11-23T00:00:00"),
        ("tuesday 08:00", "2026-11-24T08:00:00"),
        ("3 days ago", "2026-11-27T14:30:00"),
        ("3 DAYS AGO", "2026-11-27T14:30:00"),
        ("3  days   ago", "2026-11-27T14:30:00"),
        ("3days", "2026-11-27T14:30:00"),
        ("1 day ago", "2026-11-29T14:30:00"),
        ("a day ago", "2026-11-29T14:30:00"),
        ("an hour ago", "2026-11-30T13:30:00"),
        ("one week ago", "2026-11-23T14:30:00"),
        ("last week", "2026-11-23T14:30:00"),
        ("last 3 days", "2026-11-27T14:30:00"),
        ("2 weeks ago", "2026-11-16T14:30:00"),
        ("2w", "2026-11-16T14:30:00"),
        ("last month", "2026-10-30T14:30:00"),
        ("9 months ago", "2026-02-28T14:30:00"),
        ("last year", "2025-11-30T14:30:00"),
        ("1y", "2025-11-30T14:30:00"),
        ("90m", "2026-11-30T13:00:00"),
        ("90 min", "2026-11-30T13:00:00"),
        ("30 minutes ago", "2026-11-30T14:00:00"),
        ("45s", "2026-11-30T14:29:15"),
        ("2h", "2026-11-30T12:30:00"),
        ("2h ago", "2026-11-30T12:30:00"),
        ("-2h", "2026-11-30T12:30:00"),
        ("2h30m", "2026-11-30T12:00:00"),
        ("2h 30m", "2026-11-30T12:00:00"),
        ("2 hours and 30 minutes ago", "2026-11-30T12:00:00"),
        ("1d12h", "2026-11-29T02:30:00"),
        ("1.5h", "2026-11-30T13:00:00"),
        ("2026-10-01", "2026-10-01T00:00:00"),
        ("20261001", "2026-10-01T00:00:00"),
        ("2026-10", "2026-10-01T00:00:00"),
        ("2026-10-01T10:00", "2026-10-01T10:00:00"),
        ("2026-10-01t10:00", "2026-10-01T10:00:00"),
        ("2026-10-01 10:00", "2026-10-01T10:00:00"),
        ("2026-10-01 10:00:05.25", "2026-10-01T10:00:05.250"),
        ("2026-10-01T10:00Z", "2026-10-01T10:00:00"),
        ("2026-10-01T10:00z", "2026-10-01T10:00:00"),
        ("2026-10-01 10:00 UTC", "2026-10-01T10:00:00"),
        ("2026-10-01T10:00+02:00", "2026-10-01T08:00:00"),
        ("2026-10-01T10:00-0500", "2026-10-01T15:00:00"),
        ("@1790812800", "2026-10-01T00:00:00"),
        ("1790812800", "2026-10-01T00:00:00"),
    ],
)
def test_a_time_is_understood(text: str, moment: str) -> None:
    found = read_moment(text, now=NOW)

    assert found == datetime.fromisoformat(moment).replace(tzinfo=UTC).isoformat(
        timespec="milliseconds"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ago",
        "soon",
        "last",
        "last yesterday",
        "3",
        "3 days before",
        "days ago",
        "3 fortnights ago",
        "1.5 months ago",
        "yesterday 25:00",
        "yesterday noon",
        "2026-13",
        "2026-10-32",
        "01.10.2026",
        "10/01/2026",
        "999999999d",
        "999999999y",
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59-14:00",
        "2026-10-01T10:00+25:00",
        "٣ days ago",
        "2h\0",
        "\udcff",
        "9" * 5000,
    ],
)
def test_what_is_no_time_is_told_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r'^is no time; write 2026-10-01, .*"3 days ago"'):
        read_moment(text, now=NOW)
