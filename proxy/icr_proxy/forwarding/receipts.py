"""Answers that were written a moment ago: were they read? Their connections may yet tell.

A tool whose time is up closes its connection, and if the answer lay there unread, that end is a
reset (see `delivery`): the tool knows nothing, and will try again. So a write is not forgotten with
its answer, but when its connection brings another request, or ends well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.net.transport import was_reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.forwarding.duplicate_store import Duplicates, Entry
    from icr_proxy.server.response import Answer


class Receipts:
    """The last answer of each connection, as far as the guard has to do with it."""

    def __init__(
        self, *, duplicates: Duplicates, clock: Callable[[], float], reopened: Callable[[], None]
    ) -> None:
        """Reopen entries of `duplicates` whose answers turn out to be unread."""
        self._duplicates = duplicates
        self._clock = clock
        self._reopened = reopened
        self._waiting: dict[bytes, tuple[Entry, Answer, float]] = {}

    def __len__(self) -> int:
        """Count the answers."""
        return len(self._waiting)

    def expect(self, entry: Entry, answer: Answer, *, until: float) -> None:
        """Wait to hear of an answer; what is heard after `until` does not matter any more."""
        self._waiting[entry.identity] = (entry, answer, until)
        answer.when_followed(lambda reset: self._heard(entry, reset=reset))

    def look(self, identity: bytes) -> None:
        """See how a connection is now: its end may have come, and the event loop not looked."""
        found = self._waiting.get(identity)
        if found is not None and was_reset(found[1].transport):
            self._heard(found[0], reset=True)

    def _heard(self, entry: Entry, *, reset: bool) -> None:
        found = self._waiting.get(entry.identity)
        if found is None or found[0] is not entry:
            return  # an equal write was answered on another connection meanwhile
        del self._waiting[entry.identity]
        if reset and self._duplicates.reopen(entry, now=self._clock(), until=found[2]):
            self._reopened()
