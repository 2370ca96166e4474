"""Outcomes on their way to their readers: handed over a hundredth of a second's worth at a time.

Each reader alone is cheap while its code and data are warm. Called in between requests they never
are, and then all of them together cost as much as a third of a request.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from proxy.outcome import Outcome

GATHER_SECONDS = 0.01
GATHERED_MOST = 256


class Gathering:
    """A reader that keeps outcomes for a moment, and then hands them on in their order."""

    def __init__(
        self,
        readers: Sequence[Callable[[Outcome], None]],
        *,
        handed_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Hand on to `readers`; `handed_on` hears each time that all they got is with them."""
        self.readers = readers
        self._handed_on = handed_on
        self._waiting: list[Outcome] = []

    def __call__(self, outcome: Outcome) -> None:
        """Take one; it is with the readers within `GATHER_SECONDS`."""
        waiting = self._waiting
        waiting.append(outcome)
        if len(waiting) == 1:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.hand_on)
        elif len(waiting) >= GATHERED_MOST:
            self.hand_on()

    def hand_on(self) -> None:
        """Hand on what waits, now: somebody wants to look, or to say something after it."""
        if not self._waiting:
            return
        outcomes, self._waiting = self._waiting, []
        with ExitStack() as each:  # whatever one of them meets with, the others get theirs
            each.callback(self._handed_on)
            for read in reversed(self.readers):
                each.callback(_read_all, read, outcomes)


def _read_all(read: Callable[[Outcome], None], outcomes: Iterable[Outcome]) -> None:
    rest = iter(outcomes)
    try:
        for outcome in rest:
            read(outcome)
    except Exception:
        _read_all(read, rest)  # what fails with one may do well with the next
        raise
