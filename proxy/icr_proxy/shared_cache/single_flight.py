"""Single flight over all replicas: one replica mints a token, the others take it from Redis.

look     the token of another replica is in Redis, and no replica would renew it yet: it is used.
lease    otherwise one replica takes the lease and mints; the others wait for its token.
alone    without Redis, after a failed mint or a wait that was too long, each replica mints.

A lease expires when its holder dies. A replica waits at most `wait` before it mints, so that
sharing never costs more than that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from icr_proxy.backoff import Backoff
from icr_proxy.credentials.signing_key import NONCE_BYTES
from icr_proxy.errors import MintError
from icr_proxy.shared_cache.entries import is_fresh, pack, unpack
from icr_proxy.shared_cache.redis_scripts import FAILED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from icr_proxy.credentials.access_token import AccessToken
    from icr_proxy.identifiers import TokenKey
    from icr_proxy.shared_cache.entries import CacheScope, RedisKeys
    from icr_proxy.shared_cache.invalidation import Invalidations
    from icr_proxy.shared_cache.redis_store import RedisStore, StoredToken

LEASE_SECONDS = 3.0  # a mint takes far less; after a slow one, a second replica may mint, too
# Between two looks at a token that another replica mints.
POLL = Backoff(first=0.075, most=0.75, growth=1.5, jitter=2 / 3)
OWNER_BYTES = 16
HEARD_SECONDS = 1.0  # by then the message about a refused token has arrived
RESULTS = ("found", "minted", "alone", "unreadable")
"""Taken from another replica; minted here for all; minted here alone; not sealed with our key."""


class SingleFlight:
    """Mints each token once for all replicas, by a lease in Redis; otherwise as `TokenExchange`."""

    def __init__(
        self,
        *,
        mint: Callable[[TokenKey], Awaitable[AccessToken]],
        store: RedisStore,
        invalidations: Invalidations,
        scope: CacheScope,
        keys: Callable[[], Sequence[bytes]],
        margin: float,
        wait: float,
        count: Callable[[str], None],
        now: Callable[[], float],
        clock: Callable[[], float],
        random: Callable[[], float],
        entropy: Callable[[int], bytes],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """Share the tokens of `mint`; the first of `keys` seals them, all of them open them.

        A token is renewed `margin` seconds before it expires. `wait` limits how many seconds to
        wait for the mint of another replica. `count` gets one of `RESULTS`.
        """
        self._mint = mint
        self._store = store
        self._invalidations = invalidations
        self._scope = scope
        self._keys = keys
        self._margin = margin
        self._wait = wait
        self._count = count
        self._now = now
        self._clock = clock
        self._random = random
        self._entropy = entropy
        self._sleep = sleep

    async def mint(self, key: TokenKey) -> AccessToken:
        """Return a token of another replica, or mint one.

        Raises:
            MintError: as from `TokenExchange.mint`; a failure of Redis raises nothing.
        """
        await self._invalidations.wait_until_sent(key)
        redis_keys = self._scope.redis_keys(key)
        asked = self._now()
        found = await self._store.lookup(redis_keys)
        token = self._usable(key, found, asked=asked)
        if token is not None:
            return token
        owner = self._entropy(OWNER_BYTES).hex()
        end, looks = self._clock() + self._wait, 0
        while found is not None:
            asked = self._now()
            found = await self._store.lookup(redis_keys, owner=owner, lease=LEASE_SECONDS)
            if found is None:
                break
            is_mine = found.lease == owner.encode()
            token = self._usable(key, found, asked=asked)
            if token is not None:
                if is_mine:
                    await self._store.free(redis_keys, owner=owner)
                return token
            if is_mine or found.lease == FAILED or self._clock() >= end:
                self._count("minted" if is_mine else "alone")
                return await self._mint_for_all(key, redis_keys, owner=owner, epoch=found.epoch)
            looks += 1
            await self._sleep(POLL.pause(looks, chance=self._random()))
        self._count("alone")
        return await self._mint(key)

    def _usable(
        self, key: TokenKey, found: StoredToken | None, *, asked: float
    ) -> AccessToken | None:
        """Read the token of another replica; `None` if it is unreadable, due or invalidated."""
        if found is None or found.entry is None:
            return None
        token = unpack(
            self._scope, key, found.entry, seconds=found.seconds, now=asked, keys=self._keys()
        )
        if token is None:
            self._count("unreadable")
            return None
        is_good = is_fresh(token, margin=self._margin, now=self._now())
        if not is_good or self._invalidations.is_invalidated(token.fingerprint):
            return None
        if token.minted_at < self._invalidations.refused_at(key) - HEARD_SECONDS:
            return None  # what revoked our token may have revoked this one, too
        self._count("found")
        return token

    async def _mint_for_all(
        self, key: TokenKey, redis_keys: RedisKeys, *, owner: str, epoch: bytes
    ) -> AccessToken:
        token = await self._minted(key, redis_keys, owner=owner)
        if await self._put(key, token, redis_keys, owner=owner, epoch=epoch) is not False:
            return token
        # An invalidation came during the mint, so this token may be older than it. One more mint is
        # enough: it begins after the invalidation.
        found = await self._store.lookup(redis_keys)
        token = await self._minted(key, redis_keys, owner=owner)
        if found is not None:
            await self._put(key, token, redis_keys, owner=owner, epoch=found.epoch)
        return token

    async def _minted(self, key: TokenKey, redis_keys: RedisKeys, *, owner: str) -> AccessToken:
        try:
            return await self._mint(key)
        except MintError:
            await self._store.fail(redis_keys, owner=owner)
            raise
        except asyncio.CancelledError:
            await self._store.free(redis_keys, owner=owner)
            raise

    async def _put(
        self, key: TokenKey, token: AccessToken, redis_keys: RedisKeys, *, owner: str, epoch: bytes
    ) -> bool | None:
        entry = pack(
            self._scope,
            key,
            token,
            sealing_key=self._keys()[0],
            nonce=self._entropy(NONCE_BYTES),
        )
        seconds = token.expires_at - self._now()
        return await self._store.put(redis_keys, entry, seconds=seconds, owner=owner, epoch=epoch)
