"""Whether Redis is there, and what other replicas drop."""

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

PROBE_SECONDS = 5.0  # how soon it is noticed while nothing is asked that Redis has gone


class Replicas:
    """All that belongs to one shared Redis."""

    def __init__(
        self,
        *,
        store: RedisStore,
        presence: RedisHealth,
        drops: Invalidations,
        sharing: SingleFlight,
        place: CacheScope,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        probe_every: float = PROBE_SECONDS,
    ) -> None:
        self._probe_every = probe_every
        self._store = store
        self._presence = presence
        self._place = place
        self._clock = clock
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None
        self.drops = drops
        self.sharing = sharing

    @property
    def state(self) -> str:
        """One of `up` and `lost`."""
        return "up" if self._presence.is_up else "lost"

    def start(self, *, forget: Callable[[TokenKey, str | None], object]) -> None:
        """Begin to listen; `forget` is told what other replicas have dropped."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._stay(forget), name="replicas")

    async def stop(self) -> None:
        """Say what is left to say, and leave."""
        await self.drops.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._store.close()

    async def _stay(self, forget: Callable[[TokenKey, str | None], object]) -> None:
        while True:
            if await self._store.probe(self._place.probe) and await self.drops.catch_up():
                await self._listen(forget)
            await self._sleep(self._presence.pause())

    async def _listen(self, forget: Callable[[TokenKey, str | None], object]) -> None:
        """Hear what others drop, until Redis has gone."""
        async with self._store.hearing(self._place.channel) as hear:
            if hear is None:
                return
            self._presence.answered(now=self._clock())
            probe_at = self._clock() + self._probe_every
            while self._presence.is_up:
                notice = self.drops.hear(await hear())
                if notice is not None:
                    forget(notice.key, notice.fingerprint)
                if self._clock() >= probe_at:
                    await self._store.probe(self._place.probe)
                    probe_at = self._clock() + self._probe_every


# With chance, so that a Redis that starts is not met by all replicas at once.
BACKOFF = Backoff(first=1.0, most=15.0, jitter=0.5)
STEADY_SECONDS = 60.0  # what fails again before that has never really been back


class RedisHealthWatcher(Protocol):
    """Hears when Redis goes and comes back, once each."""

    def lost(self, reason: str, error: str) -> None:
        """It failed; replicas are on their own."""

    def back(self, seconds: float) -> None:
        """It is there again, after so long."""


class RedisHealth:
    """The availability of Redis: assumed until it fails, then retried with back-off."""

    def __init__(self, *, random: Callable[[], float], watcher: RedisHealthWatcher) -> None:
        self._random = random
        self._watcher = watcher
        self._pauses = 0
        self._since = 0.0
        self.is_up = True

    def failed(self, reason: str, error: str, *, now: float) -> None:
        """It did not answer, or not as it should; `error` is a type, never a text."""
        if not self.is_up:
            return
        if now - self._since >= STEADY_SECONDS:
            self._pauses = 0
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
        self._pauses += 1
        return BACKOFF.pause(self._pauses, chance=self._random())


class SharingReports:
    """A `RedisHealthWatcher`, which also counts what became of each token."""

    def __init__(self, *, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._results = {result: metrics.shared_tokens.labels(result) for result in RESULTS}
        self._has_told = False

    def lost(self, reason: str, error: str) -> None:
        """Tell that replicas are on their own."""
        self._log.warning("shared.lost", reason=reason, error=error)

    def back(self, seconds: float) -> None:
        """Tell that they are no longer."""
        self._log.info("shared.back", lost_s=round(seconds, 3))

    def counted(self, result: str) -> None:
        """Count; tell the first entry that is not ours to read, for keys may differ."""
        self._results[result].inc()
        if result == "unreadable" and not self._has_told:
            self._has_told = True
            self._log.warning("shared.unreadable")
