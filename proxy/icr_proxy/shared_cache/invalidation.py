"""Invalidation of a token everywhere: in Redis, and in the caches of other replicas.

The caller does not wait; a task sends the message. While Redis is lost, messages are kept. They are
sent before Redis counts as back, so that no replica takes a token there that was invalidated here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cachetools import FIFOCache, LRUCache

from icr_proxy.credentials.signing_key import NONCE_BYTES
from icr_proxy.shared_cache.entries import Invalidation, read_invalidation, write_invalidation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from icr_proxy.identifiers import TokenKey
    from icr_proxy.shared_cache.entries import CacheScope
    from icr_proxy.shared_cache.redis_store import RedisStore

ID_BYTES = 16


class Invalidations:
    """Sends invalidations of tokens to other replicas, and receives theirs."""

    def __init__(
        self,
        *,
        store: RedisStore,
        scope: CacheScope,
        keys: Callable[[], Sequence[bytes]],
        entropy: Callable[[int], bytes],
        now: Callable[[], float],
        max_entries: int,
    ) -> None:
        """Remember at most `max_entries` tokens, and as many installations with unsent messages."""
        self._store = store
        self._scope = scope
        self._keys = keys
        self._entropy = entropy
        self._now = now
        self._refused_at: LRUCache[TokenKey, float] = LRUCache(max_entries)
        self._replica_id = entropy(ID_BYTES).hex()
        self._invalidated: LRUCache[str, bool] = LRUCache(max_entries)
        self._unsent: FIFOCache[TokenKey, list[str | None]] = FIFOCache(max_entries)
        self._tasks: dict[TokenKey, asyncio.Task[None]] = {}

    def invalidate(self, key: TokenKey, fingerprint: str | None) -> None:
        """Invalidate the token with this fingerprint; or, without one, the current token."""
        if fingerprint is not None:
            self._invalidated[fingerprint] = True
            self._refused_at[key] = self._now()
        self._unsent.setdefault(key, []).append(fingerprint)
        if key not in self._tasks:
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._send_all(key), name="share-drop")
            self._tasks[key] = task
            task.add_done_callback(lambda _done: self._tasks.pop(key))

    def is_invalidated(self, fingerprint: str) -> bool:
        """Whether a replica invalidated exactly this token."""
        return fingerprint in self._invalidated

    def refused_at(self, key: TokenKey) -> float:
        """Return when the API last refused a token of this replica."""
        return self._refused_at.get(key, 0.0)

    async def wait_until_sent(self, key: TokenKey) -> None:
        """Wait until the messages about this token are sent, or Redis is lost."""
        task = self._tasks.get(key)
        if task is not None:
            await asyncio.wait({task})

    async def send_unsent(self) -> bool:
        """Send all messages that are left; return whether that succeeded."""
        for key in list(self._unsent):
            await self._send_all(key, is_probe=True)
        return not self._unsent

    def receive(self, data: object) -> Invalidation | None:
        """Read a message from the channel; return it if another replica sent it."""
        notice = read_invalidation(data, channel=self._scope.channel, keys=self._keys())
        if notice is None or notice.sender == self._replica_id:
            return None
        if notice.fingerprint is not None:
            self._invalidated[notice.fingerprint] = True
        return notice

    async def stop(self) -> None:
        """Wait for messages on their way, for no longer than Redis may take."""
        await asyncio.gather(*self._tasks.values())

    async def _send_all(self, key: TokenKey, *, is_probe: bool = False) -> None:
        while unsent := self._unsent.get(key):
            if not await self._send(key, unsent[0], is_probe=is_probe):
                return
            unsent.pop(0)
            if not unsent:
                self._unsent.pop(key, None)

    async def _send(self, key: TokenKey, fingerprint: str | None, *, is_probe: bool) -> bool:
        channel = self._scope.channel
        notice = write_invalidation(
            Invalidation(
                sender=self._replica_id, installation=key.installation, fingerprint=fingerprint
            ),
            channel=channel,
            sealing_key=self._keys()[0],
            nonce=self._entropy(NONCE_BYTES),
        )
        return await self._store.invalidate(
            self._scope.redis_keys(key),
            fingerprint=fingerprint or "",
            epoch=self._entropy(ID_BYTES).hex(),
            channel=channel,
            notice=notice,
            is_probe=is_probe,
        )
