"""Has a token that must not be used any more dropped everywhere: in Redis, and by other replicas.

Whoever drops one goes on at once, and Redis is told meanwhile. While it is away what was to be said
is kept, and said before it counts as back, so that nobody picks up there what was dropped here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from cachetools import FIFOCache, LRUCache

from icr_proxy.credentials.signing_key import NONCE_BYTES
from icr_proxy.shared_cache.entries import Invalidation, read_invalidation, write_invalidation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from icr_proxy.identifiers import TokenKey
    from icr_proxy.shared_cache.entries import CacheScope, RedisKeys

ID_BYTES = 16


class InvalidationStore(Protocol):
    """What drops need of `redis_store.RedisStore`."""

    async def invalidate(
        self,
        names: RedisKeys,
        *,
        fingerprint: str,
        epoch: str,
        channel: str,
        notice: bytes,
        is_probe: bool = False,
    ) -> bool:
        """Remove an entry, or only a certain one, and tell; say whether that was done."""


class Invalidations:
    """Sends invalidations of tokens to other replicas, and receives theirs."""

    def __init__(
        self,
        *,
        store: InvalidationStore,
        place: CacheScope,
        keys: Callable[[], Sequence[bytes]],
        entropy: Callable[[int], bytes],
        now: Callable[[], float],
        max_entries: int,
    ) -> None:
        """Remember at most `max_entries` tokens, and installations of which more is to be said."""
        self._store = store
        self._place = place
        self._keys = keys
        self._entropy = entropy
        self._now = now
        self._refused_at: LRUCache[TokenKey, float] = LRUCache(max_entries)
        self._me = entropy(ID_BYTES).hex()
        self._distrusted: LRUCache[str, bool] = LRUCache(max_entries)
        self._owed: FIFOCache[TokenKey, list[str | None]] = FIFOCache(max_entries)
        self._tasks: dict[TokenKey, asyncio.Task[None]] = {}

    def invalidate(self, key: TokenKey, fingerprint: str | None) -> None:
        """Drop everywhere the token with this fingerprint; or, without one, whichever is there."""
        if fingerprint is not None:
            self._distrusted[fingerprint] = True
            self._refused_at[key] = self._now()
        self._owed.setdefault(key, []).append(fingerprint)
        if key not in self._tasks:
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._tell(key), name="share-drop")
            self._tasks[key] = task
            task.add_done_callback(lambda _done: self._tasks.pop(key))

    def is_dropped(self, fingerprint: str) -> bool:
        """Whether somebody has said of just this token that it must not be used."""
        return fingerprint in self._distrusted

    def refused_at(self, key: TokenKey) -> float:
        """When the API last refused a token of this replica's."""
        return self._refused_at.get(key, 0.0)

    async def settled(self, key: TokenKey) -> None:
        """Wait until what is being said of this token has been, or Redis has gone."""
        task = self._tasks.get(key)
        if task is not None:
            await asyncio.wait({task})

    async def catch_up(self) -> bool:
        """Say all that could not be said; say whether that was done."""
        for key in list(self._owed):
            await self._tell(key, is_probe=True)
        return not self._owed

    def hear(self, data: object) -> Invalidation | None:
        """Read what another replica says, and give what is to be dropped here."""
        notice = read_invalidation(data, channel=self._place.channel, keys=self._keys())
        if notice is None or notice.sender == self._me:
            return None
        if notice.fingerprint is not None:
            self._distrusted[notice.fingerprint] = True
        return notice

    async def stop(self) -> None:
        """Wait for what is being said; that takes no longer than Redis may take."""
        await asyncio.gather(*self._tasks.values())

    async def _tell(self, key: TokenKey, *, is_probe: bool = False) -> None:
        while owed := self._owed.get(key):
            if not await self._say(key, owed[0], is_probe=is_probe):
                return
            owed.pop(0)
            if not owed:
                self._owed.pop(key, None)

    async def _say(self, key: TokenKey, fingerprint: str | None, *, is_probe: bool) -> bool:
        channel = self._place.channel
        notice = write_invalidation(
            Invalidation(sender=self._me, installation=key.installation, fingerprint=fingerprint),
            channel=channel,
            sealing_key=self._keys()[0],
            nonce=self._entropy(NONCE_BYTES),
        )
        return await self._store.invalidate(
            self._place.names(key),
            fingerprint=fingerprint or "",
            epoch=self._entropy(ID_BYTES).hex(),
            channel=channel,
            notice=notice,
            is_probe=is_probe,
        )
