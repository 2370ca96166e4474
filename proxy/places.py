"""How many connections callers may hold open: bounded, and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Places:
    """Room for so many connections, on all listeners that share it."""

    def __init__(self, limit: int, *, arrived: Callable[[str], None] = lambda _: None) -> None:
        """Have `limit` places; `arrived` hears of each new connection if it was `accepted`."""
        self._limit = limit
        self._arrived = arrived
        self.taken = 0

    def take(self) -> bool:
        """Take a place, if there is one."""
        if self.taken >= self._limit:
            self._arrived("refused")
            return False
        self.taken += 1
        self._arrived("accepted")
        return True

    def give_back(self) -> None:
        """Leave a place to others."""
        self.taken -= 1
