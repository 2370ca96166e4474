"""Places of which there are so many: taken at once while one is free, else in turn.

`asyncio.Semaphore` does the same, but is awaited even while there is room, twice for each request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress


class Slots:
    """First come, first served: a place that is given back goes to whoever waits the longest."""

    def __init__(self, most: int) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.free = most
        """How many may be taken now."""

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    def take(self) -> bool:
        """Take a place if one is free."""
        if not self.free:
            return False
        self.free -= 1
        return True

    async def wait(self, *, seconds: float) -> None:
        """Take a place when it is our turn.

        Raises:
            TimeoutError: it took longer.
        """
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        timer = loop.call_later(seconds, _end, turn)
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back()  # it came too late for us
            else:
                with suppress(ValueError):  # passed over already
                    self._waiting.remove(turn)
            raise
        finally:
            timer.cancel()

    def give_back(self) -> None:
        """Leave a place to whoever waits for one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1


def _end(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(TimeoutError())
