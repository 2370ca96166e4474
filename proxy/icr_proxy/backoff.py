"""Exponential back-off: how long to wait after failures in a row."""

from __future__ import annotations

import msgspec

MOST_STEPS = 60  # beyond that a float would overflow one day; `most` is reached long before


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """A pause that grows with each failure in a row. It holds no state and draws no chance."""

    first: float
    """Seconds after the first failure."""
    most: float
    growth: float = 2.0
    jitter: float = 0.0
    """Share of a pause by which chance shortens it: those that failed together spread out."""

    def pause(self, failures: int, *, chance: float = 0.0) -> float:
        """Return the seconds to wait after so many failures; `chance` is 0 to 1."""
        steps = min(max(failures - 1, 0), MOST_STEPS)
        return min(self.most, self.first * self.growth**steps) * (1 - self.jitter * chance)
