"""Time and chance, as values: whoever needs them gets them through its constructor."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """Time and chance, which nothing but this is allowed to fetch for itself."""

    now: Callable[[], float]
    """Seconds since the epoch."""
    clock: Callable[[], float]
    """Seconds that never jump."""
    random: Callable[[], float]
    """At least 0, less than 1."""


SYSTEM_CLOCKS = Clocks(now=time.time, clock=time.monotonic, random=random.random)  # noqa: TID251  # the one place
