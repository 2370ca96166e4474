"""The token cache: one mint per key, renewal in the background, failures remembered briefly.

The cache forgets tokens that were renewed, refused or dropped; the API does not.

fresh  use it.
due    use it, and renew it in the background.
dead   wait for the mint. A dead token is never sent.

A mint belongs to nobody who waits for it: it runs in a task of its own, every waiter has its own
deadline, and cancelling one harms no other.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from cachetools import Cache, FIFOCache, LRUCache

from icr_proxy.credentials.access_token import CachedToken, with_deadlines
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
        """Keep a token; let go those that have expired by themselves."""
        while self._tokens and next(iter(self._tokens.values())).expires_at <= now:
            self._tokens.popitem()
        self._tokens[token.fingerprint] = token

    def drain(self, *, now: float) -> list[AccessToken]:
        """Drain: return those that still live, the newest first, and forget all."""
        living = [token for token in self._tokens.values() if token.expires_at > now]
        self._tokens.clear()
        return living[::-1]


EARLY_SECONDS = 0.01  # a timer may fire so early, seen by another clock than the event loop's
UNKNOWN_AT_ONCE = 20  # mints under way for installations of which nothing is known
ISSUED_SHARE = 4  # tokens that may live at once, for each in the cache: renewed, dropped, evicted


class TokenWatcher(Protocol):
    """What is told about tokens; `metrics` and `logs` listen."""

    def looked_up(self, result: str) -> None:
        """One of `fresh`, `due`, `dead`, `negative`, `blocked`, for every request."""

    def minted(self, key: TokenKey, cached: CachedToken, seconds: float) -> None:
        """A token arrived."""

    def mint_failed(self, key: TokenKey, error: MintError, seconds: float) -> None:
        """No token arrived."""

    def refused(self, key: TokenKey, generation: int, result: str) -> None:
        """The API refused a token: `dropped`, `stale` (another has come) or `limited`."""


class InstallationListing(Protocol):
    """The API's list of installations; `installations.InstallationDirectory` is one."""

    def knows(self, installation: str) -> bool:
        """Whether it was in the list when the API was last asked."""

    async def look_up(self, installation: str) -> None:
        """Ask the API anew, if it is not in the list. Raises MintError."""


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
        dropped: Callable[[TokenKey, str | None], None] = lambda _key, _fingerprint: None,
        listing: InstallationListing | None = None,
    ) -> None:
        """Keep what `mint` gives; with `sleep`, requests wait while short failures of it pass.

        `dropped` is told what must not be used any more: the token with a fingerprint, or any.
        `listing` tells which installations exist when invented ones have used up the ration.
        """
        self._mint = mint
        self._dropped = dropped
        self._sleep = sleep
        self._config = config
        self._now = now
        self._random = random
        self._watcher = watcher
        self._cached: LRUCache[TokenKey, CachedToken] = LRUCache(config.max_entries)
        self._failures = MintFailures(
            max_entries=config.max_entries, negative_ttl=config.negative_ttl, random=random
        )
        self._rations = RemintLimiter(max_entries=config.max_entries)
        self._listing = listing
        self._failure_ration = FailureLimiter(now=now())
        self._turns_of_unknown = asyncio.Semaphore(UNKNOWN_AT_ONCE)
        self._proven: LRUCache[TokenKey, bool] = LRUCache(config.max_entries)
        self._blocked: set[TokenKey] = set()
        self._mints: dict[TokenKey, asyncio.Task[CachedToken]] = {}
        self._outdated: set[TokenKey] = set()  # whose mint under way began before a drop
        # The generation up to which no token may be sent any more.
        self._dropped_up_to: LRUCache[TokenKey, int] = LRUCache(config.max_entries)
        self._generation = 0
        self.issued = IssuedTokens(max_entries=config.max_entries * ISSUED_SHARE)
        """What may still live at the API; kept only if `tokens.revoke_on_exit` is on."""

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
        """Give a live token, from the cache if one is there.

        Raises:
            InstallationBlockedError: an operator wants it to have none.
            MintError: none could be had, and why.
        """
        began = self._now()
        patient = False
        while True:
            if key in self._blocked:
                self._watcher.looked_up("blocked")
                raise blocked_error()
            try:
                cached = await self._find(key, patient=patient)
            except MintError as error:
                # Whoever waits already goes on; who comes while the API is left alone is told so.
                if error.reason == "circuit-open" and not patient:
                    raise
                pause = self._pause(key, began=began)
                if pause is None or self._sleep is None:
                    raise
                await self._sleep(pause)
                patient = True
                continue
            # It may have been dropped between the end of the mint and the moment we go on.
            if not self._is_dropped(key, cached):
                return cached

    def may_be_sent(self, key: TokenKey, cached: CachedToken) -> bool:
        """Whether a request that was given this token may go out with it; asked before it does.

        Meanwhile the request may have waited for a connection. If not, `get` gives another token.

        Raises:
            InstallationBlockedError: an operator has blocked the installation since.
        """
        if self._blocked and key in self._blocked:
            self._watcher.looked_up("blocked")
            raise blocked_error()
        return not self._is_dropped(key, cached) and self._now() < cached.dead_at

    def _is_dropped(self, key: TokenKey, cached: CachedToken) -> bool:
        dropped = self._dropped_up_to  # as a rule empty, which spares a request the look
        return bool(dropped) and cached.generation <= dropped.get(key, 0)

    def _pause(self, key: TokenKey, *, began: float) -> float | None:
        """Seconds after which asking again may help one who has waited since `began`.

        A failure that passes within a caller's patience is none that the caller should see. One
        that has lasted for longer than that is told at once: nobody is kept waiting for nothing.
        """
        now, patience = self._now(), self._config.waiter_timeout
        failure = self._failures.lookup(key, now=now)
        if failure is None or not failure.may_pass or now - failure.began > patience:
            return None
        if failure.next_try - began >= patience:
            return None
        return max(0.0, failure.next_try - now)

    async def _find(self, key: TokenKey, *, patient: bool) -> CachedToken:
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
                self._start(key)
            return cached
        task = self._mints.get(key)
        if task is None:
            failure = self._failures.lookup(key, now=now)
            if failure is not None and not (patient and now >= failure.next_try - EARLY_SECONDS):
                self._watcher.looked_up("negative")
                raise failure.error.again(retry_after=failure.until - now)
            task = self._start(key)
        self._watcher.looked_up("dead")
        return await self._wait(task)

    async def _wait(self, task: asyncio.Task[CachedToken]) -> CachedToken:
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
        """Drop the token of this generation, which the API refused; say if minting anew may help.

        A token that came later stays: it was not the one refused. Re-mints are rationed, so that
        an upstream that refuses everything causes no storm of them.
        """
        cached = self._cached.get(key)
        if cached is None or cached.generation != generation:
            self._watcher.refused(key, generation, "stale")
            return True
        if not self._rations.allow(key, now=self._now()):
            self._watcher.refused(key, generation, "limited")
            return False
        del self._cached[key]
        self._dropped_up_to[key] = generation
        self._dropped(key, cached.token.fingerprint)
        self._watcher.refused(key, generation, "dropped")
        return True

    # -- what an operator or the registry orders --------------------------------------------------

    def invalidate(self, key: TokenKey) -> bool:
        """Invalidate the token of `key`, whatever its generation; say if there was or will be one.

        A mint under way may bring one that was made before this moment, so it is made again for
        those who wait. A request that has its token and is not sent yet gets another.
        """
        self._dropped(key, None)
        return self.invalidate_locally(key)

    def invalidate_locally(self, key: TokenKey, fingerprint: str | None = None) -> bool:
        """Invalidate the token of `key` here only, or only that with this fingerprint."""
        cached = self._cached.get(key)
        if fingerprint is not None and (cached is None or cached.token.fingerprint != fingerprint):
            return False
        if cached is not None:
            del self._cached[key]
            self._dropped_up_to[key] = cached.generation
        if fingerprint is not None:
            return True
        if cached is None:  # a request may still hold a token that has left the cache
            self._dropped_up_to[key] = self._generation
        self._failures.clear_refusal(key)
        if key in self._mints:
            self._outdated.add(key)
        return cached is not None or key in self._mints

    def block(self, key: TokenKey) -> bool:
        """Give `key` no token until it is unblocked; say if that is new."""
        is_new = key not in self._blocked
        self._blocked.add(key)
        self.invalidate(key)
        return is_new

    def unblock(self, key: TokenKey) -> bool:
        """Give `key` tokens again; say if it was blocked."""
        was_blocked = key in self._blocked
        self._blocked.discard(key)
        return was_blocked

    @property
    def blocked(self) -> frozenset[TokenKey]:
        """Whoever gets no token; in memory only."""
        return frozenset(self._blocked)

    # -- minting ----------------------------------------------------------------------------------

    def _start(self, key: TokenKey) -> asyncio.Task[CachedToken]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(key), name=f"mint-{key.kind}")
        self._mints[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: TokenKey, task: asyncio.Task[CachedToken]) -> None:
        del self._mints[key]
        self._outdated.discard(key)
        if not task.cancelled():
            task.exception()  # seen by whoever waits, or by nobody in a background renewal

    async def _run(self, key: TokenKey) -> CachedToken:
        while True:
            started = self._now()
            try:
                token = await self._mint_or_refuse(key)
            except MintError as exc:
                self._watcher.mint_failed(key, exc, self._now() - started)
                if isinstance(exc, InstallationRefusedError):
                    self._proven.pop(key, None)
                if key not in self._outdated:
                    self._failures.remember(key, exc, now=self._now())
                    raise
            else:
                cached = self._keep(key, token)
                self._watcher.minted(key, cached, self._now() - started)
                if key not in self._outdated:
                    return cached
                del self._cached[key]
            self._outdated.discard(key)
            if key in self._blocked:
                raise blocked_error()

    async def _mint_or_refuse(self, key: TokenKey) -> AccessToken:
        """Mint, unless mints of invented installations have used up the ration.

        Whatever is known to exist is minted at once: it had a token before, or the API lists it.
        The list is asked for when it matters, and of anything else only so many mints run at once.

        Raises:
            MintRationedError: it is not asked for.
        """
        if not self._is_known(key) and (
            self._turns_of_unknown.locked() or self._failure_ration.is_used_up(self._now())
        ):
            await self._look_up(key)
        if self._is_known(key):
            return await self._mint(key)
        self._failure_ration.check(self._now())
        async with self._turns_of_unknown:
            self._failure_ration.check(self._now())  # others may have failed meanwhile
            try:
                return await self._mint(key)
            except MintError as error:
                self._failure_ration.failed(error)
                raise

    def _is_known(self, key: TokenKey) -> bool:
        if key.installation is None or key in self._proven:
            return True
        return self._listing is not None and self._listing.knows(key.installation)

    async def _look_up(self, key: TokenKey) -> None:
        """Have the API's list of installations, if it is not here and can be had."""
        if self._listing is not None and key.installation is not None:
            with suppress(MintError):  # then nothing is known of the installation
                await self._listing.look_up(key.installation)

    def _keep(self, key: TokenKey, token: AccessToken) -> CachedToken:
        if self._config.revoke_on_exit:
            self.issued.add(token, now=self._now())
        self._generation += 1
        cached = with_deadlines(
            token,
            generation=self._generation,
            margin=self._config.refresh_margin,
            chance=self._random(),
        )
        self._cached[key] = cached
        self._proven[key] = True
        self._failures.clear(key)
        return cached

    # -- what the admin port shows ----------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[TokenKey, CachedToken]]:
        # Whoever looks at all tokens, such as a scrape of the metrics, uses none of them:
        # `LRUCache.__getitem__` would count each as used.
        look_up = Cache.__getitem__
        return iter([(key, look_up(self._cached, key)) for key in self._cached])

    @property
    def minting(self) -> int:
        """Mints under way."""
        return len(self._mints)

    async def stop(self) -> None:
        """Cancel the mints under way and wait until they are gone."""
        tasks = list(self._mints.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def blocked_error() -> InstallationBlockedError:
    """Tell a caller what it can do, which is little."""
    return InstallationBlockedError(
        "the operator of this proxy has blocked this installation; ask for it to be unblocked"
    )
