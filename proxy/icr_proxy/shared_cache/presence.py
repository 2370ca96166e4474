"""Whether Redis is there. Once it has failed nobody asks it but one who tries, now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE_FIRST = 1.0  # seconds until it is tried again, doubled each time
PAUSE_MOST = 15.0
JITTER_SHARE = 0.5  # so that a Redis that starts is not met by all replicas at once
STEADY_SECONDS = 60.0  # what fails again before that has never really been back


class PresenceWatcher(Protocol):
    """What is told when Redis goes and comes back, once each."""

    def lost(self, reason: str, error: str) -> None:
        """It failed; replicas are on their own."""

    def back(self, seconds: float) -> None:
        """It is there again, after so long."""


class Presence:
    """Believed to be there until it fails."""

    def __init__(self, *, random: Callable[[], float], watcher: PresenceWatcher) -> None:
        self._random = random
        self._watcher = watcher
        self._pause = PAUSE_FIRST
        self._since = 0.0
        self.is_up = True

    def failed(self, reason: str, error: str, *, now: float) -> None:
        """It did not answer, or not as it should; `error` is a type, never a text."""
        if not self.is_up:
            return
        if now - self._since >= STEADY_SECONDS:
            self._pause = PAUSE_FIRST
        self.is_up, self._since = False, now
        self._watcher.lost(reason, error)

    def answered(self, *, now: float) -> None:
        """It was tried and is there."""
        if self.is_up:
            return
        lost_for, self.is_up, self._since = now - self._since, True, now
        self._watcher.back(lost_for)

    def pause(self) -> float:
        """Say how long to leave it alone before it is tried again."""
        pause, self._pause = self._pause, min(2 * self._pause, PAUSE_MOST)
        return pause * (1 - JITTER_SHARE * self._random())
