"""One timer for many waits, one after the other.

Most waits end long before their time. A timer of its own for each costs more than the wait; this
one stays, and looks when it goes off whether the wait it was for is still the one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# uvloop rounds to the millisecond: without this, a timer that comes a little early comes twice.
SLACK_SECONDS = 0.001


class Alarm:
    """Rings once, when the time of the latest wait is over."""

    __slots__ = ("_due", "_loop", "_ring", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ring: Callable[[], None] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def set(self, seconds: float, ring: Callable[[], None]) -> None:
        """Ring in so many seconds, and no longer for what was set before."""
        self._due = due = self._loop.time() + seconds
        self._ring = ring
        if self._timer is None:
            self._start(due)
        elif due < self._timer_at:
            self._timer.cancel()
            self._start(due)

    def clear(self) -> None:
        """Do not ring, and forget for whom; the timer stays for the next."""
        self._ring = None

    def stop(self) -> None:
        """Do not ring any more, and leave no timer behind."""
        self._ring = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at: float) -> None:
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._go_off)

    def _go_off(self) -> None:
        self._timer = None
        ring = self._ring
        if ring is None:
            return
        if self._due > self._loop.time() + SLACK_SECONDS:
            self._start(self._due)
        else:
            self._ring = None
            ring()
