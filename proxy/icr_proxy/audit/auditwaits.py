"""Waiting for a record to be written, not for ever, and at the price of one future.

A timer for each wait would cost more than the record. All may wait equally long, so one timer
serves all of them: it looks at the oldest.
"""

from __future__ import annotations

import asyncio
from collections import deque

Kept = asyncio.Future[int | None]
"""The sequence number of a record, as soon as it has one; nothing if that took too long."""


class Waits:
    """Those that wait, the oldest first; lives in the event loop."""

    def __init__(self, seconds: float) -> None:
        """Let each wait for so long at most."""
        self._seconds = seconds
        self._waiting: deque[tuple[float, Kept]] = deque()
        self._is_timed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> Kept:
        """Give what to await."""
        loop = self._loop
        if loop is None:  # to ask for it each time would be a system call each time
            loop = self._loop = asyncio.get_running_loop()
        kept: Kept = loop.create_future()
        self._waiting.append((loop.time() + self._seconds, kept))
        if not self._is_timed:
            self._is_timed = True
            loop.call_later(self._seconds, self._look)
        return kept

    def tidy(self) -> None:
        """Forget those that wait no longer."""
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()

    def _look(self) -> None:
        """Let those go that have waited for too long, and look again when the next one has."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.tidy()
        while self._waiting and self._waiting[0][0] <= now:
            _, kept = self._waiting.popleft()
            if not kept.done():
                kept.set_result(None)
        self._is_timed = bool(self._waiting)
        if self._waiting:
            loop.call_at(self._waiting[0][0], self._look)
