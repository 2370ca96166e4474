"""Percentiles of durations, from counts in buckets that each reach a fixed factor further.

Four buckets to a doubling: what is read off is wrong by 9 % at most, whether it is a millisecond or
a minute, and a second of any load fits into a few dozen numbers.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

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
