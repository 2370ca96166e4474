"""How many connections callers may hold open: bounded, and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Place:
    """One of them, taken until it is left."""

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places: Places | None = places

    def leave(self) -> None:
        """Leave it to others; doing so twice is harmless."""
        places, self._places = self._places, None
        if places is not None:
            places.taken -= 1


class Places:
    """Room for so many connections, on all listeners that share it."""

    def __init__(self, limit: int, *, arrived: Callable[[str], None] = lambda _: None) -> None:
        """Have `limit` places; `arrived` hears of each new connection if it was `accepted`."""
        self._limit = limit
        self._arrived = arrived
        self.taken = 0

    @property
    def is_full(self) -> bool:
        """Whether all are taken."""
        return self.taken >= self._limit

    def take(self, *, beyond: bool = False) -> Place | None:
        """Take a place if there is one, or `beyond` the limit because another is about to leave."""
        if self.is_full and not beyond:
            self._arrived("refused")
            return None
        self.taken += 1
        self._arrived("accepted")
        return Place(self)
