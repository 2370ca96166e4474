"""Requests by the second for the last five minutes, with percentiles of their durations.

Four buckets to a doubling: what is read off is wrong by 9 % at most, whether it is a millisecond or
a minute, and a second of any load fits into a few dozen numbers.

What a chart shows and no more: how many ended well or badly, and how long they took.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from icr_proxy.observability.outcome import Outcome

SMALLEST = 0.0001  # seconds; whatever is faster is as good as this
PER_DOUBLING = 4
LAST = 96  # the bucket that begins at about 28 minutes; whatever is slower is in it as well


def bucket_of(seconds: float) -> int:
    """Say in which bucket a duration is counted."""
    if seconds <= SMALLEST:
        return 0
    return min(LAST, 1 + int(math.log2(seconds / SMALLEST) * PER_DOUBLING))


def seconds_of(bucket: int) -> float:
    """Give the middle of a bucket, on the scale on which the buckets are equally wide."""
    return SMALLEST if bucket == 0 else SMALLEST * 2 ** ((bucket - 0.5) / PER_DOUBLING)


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """Give the duration that this share of what was counted did not exceed; `None` of nothing."""
    total = sum(counts.values())
    if not total:
        return None
    wanted = max(1, math.ceil(total * share))
    buckets = sorted(counts)
    reached = accumulate(counts[bucket] for bucket in buckets)
    found = next(bucket for bucket, upto in zip(buckets, reached, strict=True) if upto >= wanted)
    return seconds_of(found)


SPAN = 300  # seconds that are kept
MINUTE = 60
OK, CLIENT, REFUSED, FAILED = range(4)
SHARES = (0.5, 0.9, 0.99)
FIRST_ERROR, FIRST_FAILURE = 400, 500

Row = tuple[int, int, int, int, int, float | None, float | None, float | None]


def ending_of(outcome: Outcome) -> int:
    """Say how a request ended: well, as the caller's mistake, refused here, or as a failure."""
    broken = outcome.code is not None and outcome.status < FIRST_ERROR
    if broken or outcome.status >= FIRST_FAILURE:
        return FAILED
    if outcome.status < FIRST_ERROR:
        return OK
    # A caller that left has no answer, so nobody has refused it anything.
    is_refusal = outcome.origin == "proxy" and outcome.code != "caller-gone"
    return REFUSED if is_refusal else CLIENT


class Second:
    """What ended within one second of the clock."""

    __slots__ = ("at", "buckets", "endings")

    def __init__(self, at: int) -> None:
        self.at = at
        self.endings = [0, 0, 0, 0]
        self.buckets: dict[int, int] = {}


class Timeline:
    """The last seconds, in a ring; a clock that jumps leaves a gap and nothing worse."""

    def __init__(self) -> None:
        self._ring: list[Second] = [Second(-1) for _ in range(SPAN)]
        self._changed: set[int] = set()

    def add(self, outcome: Outcome) -> None:
        """Count one request."""
        at = int(outcome.started_at + outcome.duration)
        second = self._ring[at % SPAN]
        if second.at != at:
            if second.at > at:
                return  # older than all that is kept
            second = self._ring[at % SPAN] = Second(at)
        second.endings[ending_of(outcome)] += 1
        bucket = bucket_of(outcome.duration)
        second.buckets[bucket] = second.buckets.get(bucket, 0) + 1
        self._changed.add(at)

    def rows(self, *, now: float) -> list[Row]:
        """Give every second in which something ended, the oldest first."""
        return [_row(second) for second in self._last(SPAN, now=now)]

    def changes(self) -> list[Row]:
        """Give the seconds that have changed since this was last asked."""
        changed, self._changed = sorted(self._changed), set()
        seconds = ((at, self._ring[at % SPAN]) for at in changed)
        return [_row(second) for at, second in seconds if second.at == at]

    def minute(self, *, now: float) -> Row:
        """Give the last minute as if it were one second; its first member is its length."""
        total, buckets = [0, 0, 0, 0], Counter[int]()
        for second in self._last(MINUTE, now=now):
            total = [one + other for one, other in zip(total, second.endings, strict=True)]
            buckets.update(second.buckets)
        return (MINUTE, *total, *_percentiles(buckets))  # type: ignore[return-value]  # four and three

    def _last(self, span: int, *, now: float) -> Iterable[Second]:
        found = [second for second in self._ring if now - span < second.at <= now]
        return sorted(found, key=lambda second: second.at)


def _row(second: Second) -> Row:
    ok, client, refused, failed = second.endings
    return (second.at, ok, client, refused, failed, *_percentiles(second.buckets))


def _percentiles(buckets: dict[int, int]) -> tuple[float | None, float | None, float | None]:
    half, most, nearly_all = (_milliseconds(percentile(buckets, share)) for share in SHARES)
    return half, most, nearly_all


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
