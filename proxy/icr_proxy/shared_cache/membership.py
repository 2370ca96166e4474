"""Keeps in touch with the other replicas: hears of drops, and notices when Redis goes and comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from icr_proxy.identifiers import TokenKey
    from icr_proxy.shared_cache.entries import Place
    from icr_proxy.shared_cache.invalidation import Drops
    from icr_proxy.shared_cache.presence import Presence
    from icr_proxy.shared_cache.redis_store import RedisStore
    from icr_proxy.shared_cache.single_flight import Sharing

PROBE_SECONDS = 5.0  # how soon it is noticed while nothing is asked that Redis has gone


class Replicas:
    """All that belongs to one shared Redis."""

    def __init__(
        self,
        *,
        store: RedisStore,
        presence: Presence,
        drops: Drops,
        sharing: Sharing,
        place: Place,
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
