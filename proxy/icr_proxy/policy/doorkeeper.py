"""Turns callers away: counts, says so in the log now and then, and takes its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.policy.lateness import Lateness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from icr_proxy.errors import CallerReason
    from icr_proxy.observability.log import Log

MOST_HELD = 64  # answers that are late at the same time; one more is answered at once
LOG_SECONDS = 1.0  # between two lines, whoever it is about


class Doorkeeper:
    """One for all listeners, so that an address has one history."""

    def __init__(
        self,
        *,
        log: Log,
        count: Callable[[CallerReason], None],
        now: Callable[[], float],
        pause: Callable[[float], Awaitable[object]],
    ) -> None:
        self._log = log
        self._count = count
        self._now = now
        self._pause = pause
        self._lateness = Lateness()
        self._logged_at = float("-inf")
        self._unlogged = 0
        self.held = 0
        """Callers who are waiting for their refusal."""

    async def turn_away(self, peer: str, reason: CallerReason) -> None:
        """Note that somebody at this address was not let in; return when he may hear it."""
        now = self._now()
        failures, seconds = self._lateness.fail(peer, now=now)
        if self.held >= MOST_HELD:
            seconds = 0.0
        self._count(reason)
        self._tell(now, peer=peer, reason=reason, failures=failures, delay_ms=round(seconds * 1000))
        if not seconds:
            return
        self.held += 1
        try:
            await self._pause(seconds)
        finally:
            self.held -= 1

    def _tell(self, now: float, *, peer: str, reason: str, failures: int, delay_ms: int) -> None:
        """Write a line, unless the last one was a moment ago; never what was sent."""
        if now - self._logged_at < LOG_SECONDS:
            self._unlogged += 1
            return
        self._log.warning(
            "caller.refused",
            peer=peer,
            reason=reason,
            failures=failures,
            delay_ms=delay_ms,
            unlogged=self._unlogged,
        )
        self._logged_at, self._unlogged = now, 0
