"""Places of which there are so many: taken at once while one is free, else in turn.

`asyncio.Semaphore` does the same, but is awaited even while there is room, twice for each request,
and whoever waits needs a time limit of their own. Here all have the same patience, so whoever
waits the longest is the first to lose it, and one timer does for all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# uvloop rounds to the millisecond: without this, a timer that comes a little early comes twice.
SLACK_SECONDS = 0.001


class Slots:
    """First come, first served: a place that is given back goes to whoever waits the longest."""

    def __init__(
        self, most: int, *, patience: float, late: Callable[[], Exception] = TimeoutError
    ) -> None:
        """Let nobody wait for more than `patience` seconds; then they get what `late` makes."""
        self._patience = patience
        self._late = late
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = 0
        """How many wait for a place."""
        self.free = most
        """How many may be taken now."""

    def take(self) -> bool:
        """Take a place if one is free."""
        if not self.free:
            return False
        self.free -= 1
        return True

    def queue(self) -> asyncio.Future[None]:
        """Give what to await for a place; whoever does not get it to its end says `leave`.

        It raises what `late` makes when it took longer than there is patience.
        """
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        due = loop.time() + self._patience
        self._waiting.append((due, turn))
        if self._timer is None:
            self._timer = loop.call_at(due, self._lose_patience, loop)
        self.waiting += 1
        return turn

    def leave(self, turn: asyncio.Future[None]) -> None:
        """Wait no longer, whatever the reason; a place that comes too late is given on."""
        if turn.cancelled() or turn.cancel():
            self.waiting -= 1
        elif turn.exception() is None:
            self.give_back()
        self._pass_over()

    def give_back(self) -> None:
        """Leave a place to whoever waits for one."""
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                self.waiting -= 1
                turn.set_result(None)
                return
        self.free += 1
        if self._timer is not None:
            self._pass_over()

    def _pass_over(self) -> None:
        """Forget who has left, as far as nobody waits in front of them, and the timer after all."""
        waiting = self._waiting
        while waiting and waiting[0][1].done():
            waiting.popleft()
        if not waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lose_patience(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now, waiting = loop.time() + SLACK_SECONDS, self._waiting
        while waiting and (waiting[0][0] <= now or waiting[0][1].done()):
            _, turn = waiting.popleft()
            if not turn.done():
                self.waiting -= 1
                turn.set_exception(self._late())
        if waiting:
            self._timer = loop.call_at(waiting[0][0], self._lose_patience, loop)
