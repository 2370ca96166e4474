"""Clocks and chance as values, and times as text.

Each request needs a time and a duration as text. So the text of a second is cached and thousandths
are looked up, which is faster than `datetime` and `round`.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

THOUSANDTHS = tuple(f".{number:03d}+00:00" for number in range(1000))


def stamp(seconds: float) -> str:
    """Format seconds since the epoch: UTC, to the millisecond."""
    second = seconds // 1
    thousandths = int((seconds - second) * 1e6 + 0.5) // 1000
    if thousandths == 1000:  # noqa: PLR2004  # rounded up to the next second
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return _to_the_second(second) + THOUSANDTHS[thousandths]


@lru_cache(maxsize=8)
def _to_the_second(second: float) -> str:
    """Format a time without its fraction; it is the same for a whole second."""
    return datetime.fromtimestamp(second, UTC).isoformat(timespec="seconds").partition("+")[0]


def milliseconds(seconds: float) -> float:
    """Convert a duration to milliseconds, to the microsecond."""
    return (seconds * 1e6 + 0.5) // 1 / 1000


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """Sources of time and chance; no other code asks the system for them."""

    now: Callable[[], float]
    """Seconds since the epoch."""
    clock: Callable[[], float]
    """Seconds that never jump."""
    random: Callable[[], float]
    """At least 0, less than 1."""


SYSTEM_CLOCKS = Clocks(now=time.time, clock=time.monotonic, random=random.random)  # noqa: TID251  # the one place
