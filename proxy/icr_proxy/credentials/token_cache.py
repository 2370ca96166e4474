"""Token cache: one mint for each key, renewal in the background, failures remembered briefly.

The cache forgets tokens that were renewed, refused or invalidated; the API does not.

fresh  send it.
due    send it, and renew it in the background.
dead   wait for the mint. A dead token is never sent.

A mint belongs to none of the requests that wait for it: it runs in a task of its own, every waiter
has its own deadline, and the cancellation of one waiter harms no other.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from cachetools import Cache, FIFOCache, LRUCache

from icr_proxy.credentials.access_token import CachedToken
from icr_proxy.credentials.mint_backoff import FailureLimiter, MintFailures, RemintLimiter
from icr_proxy.errors import (
    InstallationBlockedError,
    InstallationRefusedError,
    MintError,
    MintTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from icr_proxy.config.inbound_models import TokensConfig
    from icr_proxy.credentials.access_token import AccessToken
    from icr_proxy.identifiers import TokenKey


class IssuedTokens:
    """Issued tokens in the order of minting; bounded, the oldest leaves first."""

    def __init__(self, *, max_entries: int) -> None:
        self._tokens: FIFOCache[str, AccessToken] = FIFOCache(max_entries)

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, token: AccessToken, *, now: float) -> None:
        """Add a token; forget those that have expired."""
        while self._tokens and next(iter(self._tokens.values())).expires_at <= now:
            self._tokens.popitem()
        self._tokens[token.fingerprint] = token

    def drain(self, *, now: float) -> list[AccessToken]:
        """Return the tokens that still live, the newest first, and forget all."""
        living = [token for token in self._tokens.values() if token.expires_at > now]
        self._tokens.clear()
        return living[::-1]


EARLY_SECONDS = 0.01  # by this clock, a timer of the event loop may fire so much too early
UNKNOWN_AT_ONCE = 20  # mints under way for installations of which nothing is known
ISSUED_SHARE = 4  # tokens that may live at once, for each in the cache: renewed, dropped, evicted


class TokenWatcher(Protocol):
    """Observer of tokens; log and metrics are written by one."""

    def looked_up(self, result: str) -> None:
        """One of `fresh`, `due`, `dead`, `negative`, `blocked`, for every request."""

    def minted(self, key: TokenKey, cached: CachedToken, seconds: float) -> None:
        """A token arrived."""

    def mint_failed(self, key: TokenKey, error: MintError, seconds: float) -> None:
        """No token arrived."""

    def refused(self, key: TokenKey, generation: int, result: str) -> None:
        """The API refused a token: `dropped`, `stale` (another has come) or `limited`."""


class InstallationListing(Protocol):
    """The installations that the API lists; `InstallationDirectory` implements it."""

    def knows(self, installation: str) -> bool:
        """Whether the API listed the installation when it was last asked."""

    async def look_up(self, installation: str) -> None:
        """Fetch the list again if the installation is not in it. Raises MintError."""


class TokenCache:
    """The token cache of one app at one base URL."""

    def __init__(
        self,
        *,
        mint: Callable[[TokenKey], Awaitable[AccessToken]],
        config: TokensConfig,
        now: Callable[[], float],
        random: Callable[[], float],
        watcher: TokenWatcher,
        sleep: Callable[[float], Awaitable[None]] | None = None,
        invalidated: Callable[[TokenKey, str | None], None] = lambda _key, _fingerprint: None,
        listing: InstallationListing | None = None,
    ) -> None:
        """Cache the tokens of `mint`; with `sleep`, requests wait while short failures pass.

        `invalidated` gets each token that must not be used any more, by fingerprint or whichever.
        `listing` tells which installations exist once invented ones have used up the limit.
        """
        self._mint = mint
        self._on_invalidated = invalidated
        self._sleep = sleep
        self._config = config
        self._now = now
        self._random = random
        self._watcher = watcher
        self._cached: LRUCache[TokenKey, CachedToken] = LRUCache(config.max_entries)
        self._failures = MintFailures(
            max_entries=config.max_entries, negative_ttl=config.negative_ttl, random=random
        )
        self._remint_limiter = RemintLimiter(max_entries=config.max_entries)
        self._listing = listing
        self._failure_limiter = FailureLimiter(now=now())
        self._unknown_mints = asyncio.Semaphore(UNKNOWN_AT_ONCE)
        self._known: LRUCache[TokenKey, bool] = LRUCache(config.max_entries)
        self._blocked: set[TokenKey] = set()
        self._mints: dict[TokenKey, asyncio.Task[CachedToken]] = {}
        self._outdated: set[TokenKey] = set()  # keys whose mint began before an invalidation
        # The generation up to which no token of a key may be sent any more.
        self._invalidated_up_to: LRUCache[TokenKey, int] = LRUCache(config.max_entries)
        self._generation = 0
        self.issued = IssuedTokens(max_entries=config.max_entries * ISSUED_SHARE)
        """Tokens that may still live at the API; filled only with `tokens.revoke_on_exit`."""

    def get_fresh(self, key: TokenKey) -> CachedToken | None:
        """Return a fresh cached token without waiting, or None."""
        cached = self._cached.get(key)
        if cached is None or key in self._blocked:
            return None
        if not cached.fresh_from <= self._now() < cached.due_at:
            return None
        self._watcher.looked_up("fresh")
        return cached

    async def get(self, key: TokenKey) -> CachedToken:
        """Return a live token, from the cache or from a mint.

        Raises:
            InstallationBlockedError: an operator has blocked the installation.
            MintError: no token could be had, and why.
        """
        began = self._now()
        patient = False
        while True:
            if key in self._blocked:
                self._watcher.looked_up("blocked")
                raise blocked_error()
            try:
                cached = await self._get_or_mint(key, patient=patient)
            except MintError as error:
                # A request that waits already goes on; a new one fails while the circuit is open.
                if error.reason == "circuit-open" and not patient:
                    raise
                pause = self._retry_pause(key, began=began)
                if pause is None or self._sleep is None:
                    raise
                await self._sleep(pause)
                patient = True
                continue
            # An invalidation may have come between the end of the mint and this moment.
            if not self._is_invalidated(key, cached):
                return cached

    def may_be_sent(self, key: TokenKey, cached: CachedToken) -> bool:
        """Whether a request may still be sent with the token it got; asked just before sending.

        Meanwhile the request may have waited for a connection. If not, `get` returns another token.

        Raises:
            InstallationBlockedError: an operator has blocked the installation since.
        """
        if self._blocked and key in self._blocked:
            self._watcher.looked_up("blocked")
            raise blocked_error()
        return not self._is_invalidated(key, cached) and self._now() < cached.dead_at

    def _is_invalidated(self, key: TokenKey, cached: CachedToken) -> bool:
        marks = self._invalidated_up_to  # as a rule empty, which saves a request the look-up
        return bool(marks) and cached.generation <= marks.get(key, 0)

    def _retry_pause(self, key: TokenKey, *, began: float) -> float | None:
        """Return the seconds until the next try for a request that has waited since `began`.

        A client should not see a failure that passes within `tokens.waiter_timeout`. A failure that
        has lasted longer is reported at once: no request waits in vain.
        """
        now, patience = self._now(), self._config.waiter_timeout
        failure = self._failures.lookup(key, now=now)
        if failure is None or not failure.may_pass or now - failure.began > patience:
            return None
        if failure.next_try - began >= patience:
            return None
        return max(0.0, failure.next_try - now)

    async def _get_or_mint(self, key: TokenKey, *, patient: bool) -> CachedToken:
        now = self._now()
        cached = self._cached.get(key)
        state = cached.state(now) if cached is not None else "dead"
        if cached is not None and state != "dead":
            self._watcher.looked_up(state)
            if (
                state == "due"
                and key not in self._mints
                and self._failures.lookup(key, now=now) is None
            ):
                self._start_mint(key)
            return cached
        task = self._mints.get(key)
        if task is None:
            failure = self._failures.lookup(key, now=now)
            if failure is not None and not (patient and now >= failure.next_try - EARLY_SECONDS):
                self._watcher.looked_up("negative")
                raise failure.error.again(retry_after=failure.until - now)
            task = self._start_mint(key)
        self._watcher.looked_up("dead")
        return await self._wait_for_mint(task)

    async def _wait_for_mint(self, task: asyncio.Task[CachedToken]) -> CachedToken:
        # `wait` cancels nothing it waits for, so leaving harms nobody. `shield` would do, too, but
        # newer Pythons then report a failed mint to the event loop for each waiter that has left
        # (python/cpython#156321).
        await asyncio.wait({task}, timeout=self._config.waiter_timeout)
        if not task.done():
            raise MintTimeoutError("no token arrived in time; try again")
        if task.cancelled():
            raise MintError("the proxy is stopping")
        error = task.exception()
        if isinstance(error, MintError):
            raise error.again(retry_after=error.retry_after) from error
        return task.result()

    def refused(self, key: TokenKey, generation: int) -> bool:
        """Drop the token of this generation, which the API refused; return whether to mint again.

        A later token stays: it was not the refused one. Re-mints are limited, so that an API that
        refuses everything causes no storm of them.
        """
        cached = self._cached.get(key)
        if cached is None or cached.generation != generation:
            self._watcher.refused(key, generation, "stale")
            return True
        if not self._remint_limiter.allow(key, now=self._now()):
            self._watcher.refused(key, generation, "limited")
            return False
        del self._cached[key]
        self._invalidated_up_to[key] = generation
        self._on_invalidated(key, cached.token.fingerprint)
        self._watcher.refused(key, generation, "dropped")
        return True

    # -- orders of an operator or the registry ----------------------------------------------------

    def invalidate(self, key: TokenKey) -> bool:
        """Invalidate the token of `key`; return whether there was one, or a mint under way.

        A mint under way may bring a token from before this moment, so it is repeated for those who
        wait. A request that has its token and is not sent yet gets another.
        """
        self._on_invalidated(key, None)
        return self.invalidate_locally(key)

    def invalidate_locally(self, key: TokenKey, fingerprint: str | None = None) -> bool:
        """Invalidate the token of `key` in this replica, or only the one with this fingerprint."""
        cached = self._cached.get(key)
        if fingerprint is not None and (cached is None or cached.token.fingerprint != fingerprint):
            return False
        if cached is not None:
            del self._cached[key]
            self._invalidated_up_to[key] = cached.generation
        if fingerprint is not None:
            return True
        if cached is None:  # a request may still hold a token that has left the cache
            self._invalidated_up_to[key] = self._generation
        self._failures.clear_refusal(key)
        if key in self._mints:
            self._outdated.add(key)
        return cached is not None or key in self._mints

    def block(self, key: TokenKey) -> bool:
        """Issue no token for `key` until it is unblocked; return whether that is new."""
        is_new = key not in self._blocked
        self._blocked.add(key)
        self.invalidate(key)
        return is_new

    def unblock(self, key: TokenKey) -> bool:
        """Issue tokens for `key` again; return whether it was blocked."""
        was_blocked = key in self._blocked
        self._blocked.discard(key)
        return was_blocked

    @property
    def blocked(self) -> frozenset[TokenKey]:
        """The blocked keys; in memory only."""
        return frozenset(self._blocked)

    # -- minting ----------------------------------------------------------------------------------

    def _start_mint(self, key: TokenKey) -> asyncio.Task[CachedToken]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._mint_until_valid(key), name=f"mint-{key.kind}")
        self._mints[key] = task
        task.add_done_callback(lambda done: self._on_mint_done(key, done))
        return task

    def _on_mint_done(self, key: TokenKey, task: asyncio.Task[CachedToken]) -> None:
        del self._mints[key]
        self._outdated.discard(key)
        if not task.cancelled():
            task.exception()  # retrieved, because nobody waits for a renewal in the background

    async def _mint_until_valid(self, key: TokenKey) -> CachedToken:
        while True:
            started = self._now()
            try:
                token = await self._mint_within_limits(key)
            except MintError as exc:
                self._watcher.mint_failed(key, exc, self._now() - started)
                if isinstance(exc, InstallationRefusedError):
                    self._known.pop(key, None)
                if key not in self._outdated:
                    self._failures.remember(key, exc, now=self._now())
                    raise
            else:
                cached = self._store(key, token)
                self._watcher.minted(key, cached, self._now() - started)
                if key not in self._outdated:
                    return cached
                del self._cached[key]
            self._outdated.discard(key)
            if key in self._blocked:
                raise blocked_error()

    async def _mint_within_limits(self, key: TokenKey) -> AccessToken:
        """Mint, unless failed mints of unknown installations have used up the limit.

        An installation is known if it had a token before, or if the API lists it; its mint starts
        at once. The list is fetched only if it matters. Few mints of unknown ones run at once.

        Raises:
            MintRationedError: the limit is used up.
        """
        if not self._is_known(key) and (
            self._unknown_mints.locked() or self._failure_limiter.is_used_up(self._now())
        ):
            await self._refresh_listing(key)
        if self._is_known(key):
            return await self._mint(key)
        self._failure_limiter.check(self._now())
        async with self._unknown_mints:
            self._failure_limiter.check(self._now())  # others may have failed meanwhile
            try:
                return await self._mint(key)
            except MintError as error:
                self._failure_limiter.failed(error)
                raise

    def _is_known(self, key: TokenKey) -> bool:
        if key.installation is None or key in self._known:
            return True
        return self._listing is not None and self._listing.knows(key.installation)

    async def _refresh_listing(self, key: TokenKey) -> None:
        """Fetch the list of installations if this one is not in it."""
        if self._listing is not None and key.installation is not None:
            with suppress(MintError):  # then the installation stays unknown
                await self._listing.look_up(key.installation)

    def _store(self, key: TokenKey, token: AccessToken) -> CachedToken:
        if self._config.revoke_on_exit:
            self.issued.add(token, now=self._now())
        self._generation += 1
        cached = CachedToken.from_token(
            token,
            generation=self._generation,
            margin=self._config.refresh_margin,
            chance=self._random(),
        )
        self._cached[key] = cached
        self._known[key] = True
        self._failures.clear(key)
        return cached

    # -- for the admin port -----------------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[TokenKey, CachedToken]]:
        # A scrape of the metrics looks at all tokens and must not count as use of them, as
        # `LRUCache.__getitem__` would count it.
        look_up = Cache.__getitem__
        return iter([(key, look_up(self._cached, key)) for key in self._cached])

    @property
    def minting(self) -> int:
        """The number of mints under way."""
        return len(self._mints)

    async def stop(self) -> None:
        """Cancel the mints under way and wait until they are gone."""
        tasks = list(self._mints.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def blocked_error() -> InstallationBlockedError:
    """Make the error for a request of a blocked installation."""
    return InstallationBlockedError(
        "the operator of this proxy has blocked this installation; ask for it to be unblocked"
    )
