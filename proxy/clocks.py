"""Time and chance, as values: whoever needs them gets them through its constructor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Time and chance, which nothing but this is allowed to fetch for itself."""

    now: Callable[[], float]
    """Seconds since the epoch."""
    clock: Callable[[], float]
    """Seconds that never jump."""
    random: Callable[[], float]
    """At least 0, less than 1."""
