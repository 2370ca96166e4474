"""Connection of one replica to the others: availability of Redis, and received invalidations."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from icr_proxy.backoff import Backoff
from icr_proxy.shared_cache.single_flight import RESULTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from icr_proxy.identifiers import TokenKey
    from icr_proxy.observability.log import Log
    from icr_proxy.observability.metrics import Metrics
    from icr_proxy.shared_cache.entries import CacheScope
    from icr_proxy.shared_cache.invalidation import Invalidations
    from icr_proxy.shared_cache.redis_store import RedisStore
    from icr_proxy.shared_cache.single_flight import SingleFlight

PROBE_SECONDS = 5.0  # without requests, the loss of Redis is noticed this soon


class Replicas:
    """The replicas that share one Redis: receives invalidations for as long as it is available."""

    def __init__(
        self,
        *,
        store: RedisStore,
        health: RedisHealth,
        invalidations: Invalidations,
        single_flight: SingleFlight,
        scope: CacheScope,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        probe_every: float = PROBE_SECONDS,
    ) -> None:
        self._probe_every = probe_every
        self._store = store
        self._health = health
        self._scope = scope
        self._clock = clock
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None
        self.invalidations = invalidations
        self.single_flight = single_flight

    @property
    def state(self) -> str:
        """One of `up` and `lost`."""
        return "up" if self._health.is_up else "lost"

    def start(self, *, forget: Callable[[TokenKey, str | None], object]) -> None:
        """Start receiving; `forget` gets each token that another replica invalidated."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(forget), name="replicas")

    async def stop(self) -> None:
        """Send the invalidations that are left, and disconnect."""
        await self.invalidations.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._store.close()

    async def _run(self, forget: Callable[[TokenKey, str | None], object]) -> None:
        while True:
            if (
                await self._store.probe(self._scope.probe)
                and await self.invalidations.send_unsent()
            ):
                await self._listen(forget)
            await self._sleep(self._health.pause())

    async def _listen(self, forget: Callable[[TokenKey, str | None], object]) -> None:
        """Receive invalidations until Redis is lost."""
        async with self._store.subscription(self._scope.channel) as receive:
            if receive is None:
                return
            self._health.answered(now=self._clock())
            probe_at = self._clock() + self._probe_every
            while self._health.is_up:
                notice = self.invalidations.receive(await receive())
                if notice is not None:
                    forget(notice.key, notice.fingerprint)
                if self._clock() >= probe_at:
                    await self._store.probe(self._scope.probe)
                    probe_at = self._clock() + self._probe_every


# With jitter, so that not all replicas connect at once to a Redis that starts.
BACKOFF = Backoff(first=1.0, most=15.0, jitter=0.5)
STEADY_SECONDS = 60.0  # a Redis that fails again earlier was never really back


class RedisHealthWatcher(Protocol):
    """Observer of Redis; each loss and each return is reported once."""

    def lost(self, reason: str, error: str) -> None:
        """Redis failed; each replica mints its own tokens."""

    def back(self, seconds: float) -> None:
        """Redis answers again, after so many seconds."""


class RedisHealth:
    """The availability of Redis: assumed until it fails, then retried with back-off."""

    def __init__(self, *, random: Callable[[], float], watcher: RedisHealthWatcher) -> None:
        self._random = random
        self._watcher = watcher
        self._pauses = 0
        self._since = 0.0
        self.is_up = True

    def failed(self, reason: str, error: str, *, now: float) -> None:
        """Record that Redis did not answer, or not correctly; `error` is a type, never a text."""
        if not self.is_up:
            return
        if now - self._since >= STEADY_SECONDS:
            self._pauses = 0
        self.is_up, self._since = False, now
        self._watcher.lost(reason, error)

    def answered(self, *, now: float) -> None:
        """Record that a probe succeeded."""
        if self.is_up:
            return
        lost_for, self.is_up, self._since = now - self._since, True, now
        self._watcher.back(lost_for)

    def pause(self) -> float:
        """Return the seconds to wait before the next probe."""
        self._pauses += 1
        return BACKOFF.pause(self._pauses, chance=self._random())


class SharingReports:
    """Log and metrics of sharing; a `RedisHealthWatcher`, and the counter of results."""

    def __init__(self, *, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._results = {result: metrics.shared_tokens.labels(result) for result in RESULTS}
        self._has_logged = False

    def lost(self, reason: str, error: str) -> None:
        """Log that each replica mints its own tokens."""
        self._log.warning("shared.lost", reason=reason, error=error)

    def back(self, seconds: float) -> None:
        """Log that the replicas share again."""
        self._log.info("shared.back", lost_s=round(seconds, 3))

    def counted(self, result: str) -> None:
        """Count a result; log the first unreadable entry, as keys may differ."""
        self._results[result].inc()
        if result == "unreadable" and not self._has_logged:
            self._has_logged = True
            self._log.warning("shared.unreadable")
