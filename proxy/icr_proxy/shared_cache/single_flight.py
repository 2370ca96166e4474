"""One mint for all replicas: whoever needs a token looks in Redis, and one of them has it made.

look     another replica's token is there, and nobody would renew it yet: it is used.
lease    otherwise one replica takes the lease and mints; the others wait for what it puts there.
alone    without Redis, after a failed mint or a wait that was too long, each has its own made.

A lease ends by itself when its holder dies. Nobody waits longer than `wait` before he mints, so
that sharing is never worse than not sharing by more than that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

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
    from icr_proxy.shared_cache.redis_store import StoredToken

LEASE_SECONDS = 3.0  # a mint takes far less; one that does not may be joined by another replica's
# Between two looks at a token that another replica mints.
POLL = Backoff(first=0.075, most=0.75, growth=1.5, jitter=2 / 3)
OWNER_BYTES = 16
HEARD_SECONDS = 1.0  # by then a refusal that another replica has healed is heard of
RESULTS = ("found", "minted", "alone", "unreadable")
"""Another replica's; made here for all; made without Redis or after a wait in vain; not ours."""


class LeaseStore(Protocol):
    """The part of `redis_store.RedisStore` needed here; `None` always means that Redis is away."""

    async def lookup(
        self, names: RedisKeys, *, owner: str = "", lease: float = 0.0
    ) -> StoredToken | None:
        """See what is there, and perhaps take the lease."""

    async def put(
        self, names: RedisKeys, entry: bytes, *, seconds: float, owner: str, epoch: bytes
    ) -> bool | None:
        """Keep an entry and free the lease; say whether no drop was in between."""

    async def free(self, names: RedisKeys, *, owner: str) -> None:
        """Free the lease."""

    async def fail(self, names: RedisKeys, *, owner: str) -> None:
        """Turn the lease into word of a failure."""


class SingleFlight:
    """Mints each token once for all replicas, by a lease in Redis; otherwise as `TokenExchange`."""

    def __init__(
        self,
        *,
        mint: Callable[[TokenKey], Awaitable[AccessToken]],
        store: LeaseStore,
        drops: Invalidations,
        place: CacheScope,
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
        """Share what `mint` gives; `keys` are those to seal with, the first, and to open with.

        `margin` is how long before its end a token is renewed, `wait` for how many seconds another
        replica's mint is waited for, `count` is told one of `RESULTS`.
        """
        self._mint = mint
        self._store = store
        self._drops = drops
        self._place = place
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
        """Give a token of another replica, or have one made.

        Raises:
            MintError: as `TokenExchange.mint` does, and for nothing that Redis does.
        """
        await self._drops.settled(key)
        names = self._place.names(key)
        asked = self._now()
        found = await self._store.lookup(names)
        token = self._usable(key, found, asked=asked)
        if token is not None:
            return token
        owner = self._entropy(OWNER_BYTES).hex()
        end, looks = self._clock() + self._wait, 0
        while found is not None:
            asked = self._now()
            found = await self._store.lookup(names, owner=owner, lease=LEASE_SECONDS)
            if found is None:
                break
            is_mine = found.lease == owner.encode()
            token = self._usable(key, found, asked=asked)
            if token is not None:
                if is_mine:
                    await self._store.free(names, owner=owner)
                return token
            if is_mine or found.lease == FAILED or self._clock() >= end:
                self._count("minted" if is_mine else "alone")
                return await self._mint_for_all(key, names, owner=owner, epoch=found.epoch)
            looks += 1
            await self._sleep(POLL.pause(looks, chance=self._random()))
        self._count("alone")
        return await self._mint(key)

    def _usable(
        self, key: TokenKey, found: StoredToken | None, *, asked: float
    ) -> AccessToken | None:
        """Take what another replica has left, if it is ours to read, good, and not due."""
        if found is None or found.entry is None:
            return None
        token = unpack(
            self._place, key, found.entry, seconds=found.seconds, now=asked, keys=self._keys()
        )
        if token is None:
            self._count("unreadable")
            return None
        is_good = is_fresh(token, margin=self._margin, now=self._now())
        if not is_good or self._drops.is_dropped(token.fingerprint):
            return None
        if token.minted_at < self._drops.refused_at(key) - HEARD_SECONDS:
            return None  # whoever revoked ours may have revoked this one, too
        self._count("found")
        return token

    async def _mint_for_all(
        self, key: TokenKey, names: RedisKeys, *, owner: str, epoch: bytes
    ) -> AccessToken:
        token = await self._minted(key, names, owner=owner)
        if await self._put(key, token, names, owner=owner, epoch=epoch) is not False:
            return token
        # It was dropped while it was made, so it may be of before. Once is enough: what matters is
        # that the mint began after the drop.
        found = await self._store.lookup(names)
        token = await self._minted(key, names, owner=owner)
        if found is not None:
            await self._put(key, token, names, owner=owner, epoch=found.epoch)
        return token

    async def _minted(self, key: TokenKey, names: RedisKeys, *, owner: str) -> AccessToken:
        try:
            return await self._mint(key)
        except MintError:
            await self._store.fail(names, owner=owner)
            raise
        except asyncio.CancelledError:
            await self._store.free(names, owner=owner)
            raise

    async def _put(
        self, key: TokenKey, token: AccessToken, names: RedisKeys, *, owner: str, epoch: bytes
    ) -> bool | None:
        entry = pack(
            self._place,
            key,
            token,
            sealing_key=self._keys()[0],
            nonce=self._entropy(NONCE_BYTES),
        )
        seconds = token.expires_at - self._now()
        return await self._store.put(names, entry, seconds=seconds, owner=owner, epoch=epoch)
