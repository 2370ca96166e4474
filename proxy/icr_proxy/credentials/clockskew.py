"""How far the API's clock is ahead of ours, as the `Date` of its answers tells."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Header = tuple[bytes, bytes]

NOISE_SECONDS = 1.0  # `Date` has whole seconds, so less cannot be told from none
# A clock farther off finds no certificate valid, so such a `Date` is wrong itself.
MOST_SECONDS = 366 * 86400.0


def measure_skew(date: float, *, asked_at: float, answered_at: float) -> float:
    """Seconds by which the API's clock is ahead of ours, or 0 if none can be told.

    `Date` is cut to whole seconds and may be from any moment between question and answer.
    """
    skew = date + 0.5 - (asked_at + answered_at) / 2
    return skew if abs(skew) > NOISE_SECONDS + abs(answered_at - asked_at) / 2 else 0.0


def learn_skew(headers: Sequence[Header], *, asked_at: float, answered_at: float) -> float | None:
    """Measure by the head of an answer; `None` if its date is missing or absurd."""
    date = server_date(headers)
    if date is None:
        return None
    skew = measure_skew(date, asked_at=asked_at, answered_at=answered_at)
    return skew if abs(skew) <= MOST_SECONDS else None


def server_date(headers: Sequence[Header]) -> float | None:
    """Seconds since the epoch of the `Date` header (RFC 9110, 6.6.1), if it has a usable one."""
    for name, value in headers:
        if name.lower() == b"date":
            return http_date(value)
    return None


def http_date(value: bytes) -> float | None:
    """Seconds since the epoch of a date in a header, if it is one."""
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
        # Dates of HTTP are always in UTC (RFC 9110, 5.6.7), said or not.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
