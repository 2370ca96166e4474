"""Which audit record tells of which request, for consoles.

The trail tells of whole batches, and a batch is only kept, not looked through, until somebody
opens a console: a request costs nothing here but the memory. Even that is no more than it has to
be: the less is held, the sooner the next requests get memory that is still in the processor's
cache. An outcome is known by what it is and not by its id, which callers may choose.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.audit.records import Record
    from icr_proxy.observability.outcome import Outcome

RECORDS_KEPT = 450  # of 200 requests that change something, and some more
RECORDS_MOST = 10_000  # between two frames; more than can be written in that time
OWED_MOST = 250  # rows that were shown before their record was written

Told = tuple[str, float, int]
"""Id and beginning of a request, as which a page knows it, and the number of its record."""


class Recorded:
    """The last batches that were written, and the rows that wait for their record."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, Sequence[Record | Outcome]]] = deque()
        self._held = 0
        self._owed: deque[Outcome] = deque(maxlen=OWED_MOST)

    def add(self, entries: Sequence[Record | Outcome], *, last: int, most: int) -> None:
        """Keep a batch, `last` being the number of its last record; `most` records in all."""
        if entries:
            self._batches.append((last - len(entries) + 1, entries))
            self._held += len(entries)
            self.trim(most)

    def trim(self, most: int) -> None:
        """Forget all but the newest `most` records."""
        while self._held > most:
            first, entries = self._batches.popleft()
            self._held -= len(entries)
            left = most - self._held
            if left > 0:
                self._batches.appendleft((first + len(entries) - left, entries[-left:]))
                self._held = most

    def of(self, outcomes: Iterable[Outcome]) -> list[int | None]:
        """Give the numbers of their records, as far as they are there; owe the others."""
        if not self._batches:  # no audit trail is kept
            return [None for _ in outcomes]
        index = self._index()
        wanted = list(outcomes)
        self._owed.extend(each for each in wanted if id(each) not in index)
        return [index.get(id(each)) for each in wanted]

    def owed(self) -> list[Told]:
        """Give the numbers that were owed and have come."""
        if not self._owed:
            return []
        index = self._index()
        found = [each for each in self._owed if id(each) in index]
        left = [each for each in self._owed if id(each) not in index]
        self._owed = deque(left, maxlen=OWED_MOST)
        return [(each.request_id, each.started_at, index[id(each)]) for each in found]

    def rest(self) -> None:
        """Nobody looks any more."""
        self._owed.clear()
        self.trim(RECORDS_KEPT)

    def _index(self) -> dict[int, int]:
        """Give the numbers by the identity of what was recorded; all of it is held, so it lasts."""
        return {
            id(entry): first + place
            for first, entries in self._batches
            for place, entry in enumerate(entries)
        }
