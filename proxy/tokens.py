"""Who has which token: fresh, due or dead; one mint per key; failures remembered briefly.

fresh  use it.
due    use it, and renew it in the background.
dead   wait for the mint. A dead token is never sent.

A mint belongs to nobody who waits for it: it runs in a task of its own, every waiter has its own
deadline, and cancelling one harms no other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cachetools import Cache, LRUCache

from proxy.errors import (
    AppKeyRefusedError,
    InstallationRefusedError,
    MintError,
    MintFailedError,
    MintTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from proxy.access import AccessToken, TokenKey
    from proxy.config import TokensConfig

MARGIN_SHARE = 0.1  # at most a tenth of a token's lifetime is spent renewing it
JITTER_SHARE = 0.4  # so that installations which started together do not renew together
DEAD_SECONDS = 2.0  # a token this close to its end would expire on the way
DEAD_SHARE = 0.05  # … and no more than this share of its lifetime, for very short ones
BACKOFF_FIRST = 1.0  # seconds until a failed mint is tried again, doubled each time
BACKOFF_MOST = 30.0
RETRY_AFTER_MOST = 300.0  # an API that says "in a day" by mistake must not be believed
CLOCK_TREMBLE = 1.0  # seconds by which a clock may go back without having been set back
REFUSALS_BURST = 5  # re-mints that refusals may cause at once, per installation
REFUSALS_PER_SECOND = 0.2  # … and how fast that allowance grows back


@dataclass(slots=True, kw_only=True)
class CachedToken:
    """A token in the cache, with the header value that carries it, encoded once."""

    token: AccessToken
    generation: int
    authorization: bytes
    due_at: float
    dead_at: float

    def state(self, now: float) -> str:
        """One of `fresh`, `due`, `dead`."""
        if now >= self.dead_at:
            return "dead"
        # A clock that was set back makes a token seem to live for longer than it does.
        was_set_back = now < self.token.minted_at - CLOCK_TREMBLE
        return "due" if now >= self.due_at or was_set_back else "fresh"

    def __repr__(self) -> str:
        return f"CachedToken({self.token.fingerprint}, generation={self.generation})"


@dataclass(slots=True, kw_only=True)
class Failure:
    """Why there is no new token, and until when asking again is pointless."""

    error: MintError
    since: float
    until: float
    count: int

    def holds(self, now: float) -> bool:
        """Whether it is still to be believed; a clock that was set back makes no failure last."""
        return self.since <= now < self.until


@dataclass(slots=True, kw_only=True)
class Allowance:
    """How many re-mints refusals may still cause."""

    left: float
    at: float


class TokenWatcher(Protocol):
    """What is told about tokens; `metrics` and `logs` listen."""

    def looked_up(self, result: str) -> None:
        """One of `fresh`, `due`, `dead`, `negative`, for every request."""

    def minted(self, key: TokenKey, cached: CachedToken, seconds: float) -> None:
        """A token arrived."""

    def mint_failed(self, key: TokenKey, error: MintError, seconds: float) -> None:
        """No token arrived."""

    def refused(self, key: TokenKey, generation: int, result: str) -> None:
        """The API refused a token: `dropped`, `stale` (another has come) or `limited`."""


class Tokens:
    """The cache of one app at one base URL."""

    def __init__(
        self,
        *,
        mint: Callable[[TokenKey], Awaitable[AccessToken]],
        config: TokensConfig,
        now: Callable[[], float],
        random: Callable[[], float],
        watcher: TokenWatcher,
    ) -> None:
        self._mint = mint
        self._config = config
        self._now = now
        self._random = random
        self._watcher = watcher
        self._cached: LRUCache[TokenKey, CachedToken] = LRUCache(config.max_entries)
        # Apart from the tokens, so that invented installations push none of them out.
        self._failures: LRUCache[TokenKey, Failure] = LRUCache(config.max_entries)
        self._allowances: LRUCache[TokenKey, Allowance] = LRUCache(config.max_entries)
        self._app_failure: Failure | None = None
        self._mints: dict[TokenKey, asyncio.Task[CachedToken]] = {}
        self._generation = 0

    async def get(self, key: TokenKey) -> CachedToken:
        """Give a live token, from the cache if one is there.

        Raises:
            MintError: none could be had, and why.
        """
        now = self._now()
        cached = self._cached.get(key)
        state = cached.state(now) if cached is not None else "dead"
        if cached is not None and state != "dead":
            self._watcher.looked_up(state)
            if state == "due" and key not in self._mints and self._failure(key, now) is None:
                self._start(key)
            return cached
        task = self._mints.get(key)
        if task is None:
            failure = self._failure(key, now)
            if failure is not None:
                self._watcher.looked_up("negative")
                raise again(failure.error, wait=failure.until - now)
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
            raise MintFailedError("the proxy is stopping")
        error = task.exception()
        if isinstance(error, MintError):
            raise again(error, wait=error.retry_after) from error
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
        if not self._allowed(key):
            self._watcher.refused(key, generation, "limited")
            return False
        del self._cached[key]
        self._watcher.refused(key, generation, "dropped")
        return True

    def _allowed(self, key: TokenKey) -> bool:
        now = self._now()
        allowance = self._allowances.get(key)
        if allowance is None:
            allowance = self._allowances[key] = Allowance(left=REFUSALS_BURST, at=now)
        grown = max(0.0, now - allowance.at) * REFUSALS_PER_SECOND
        allowance.left = min(REFUSALS_BURST, allowance.left + grown)
        allowance.at = now
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True

    # -- minting ----------------------------------------------------------------------------------

    def _start(self, key: TokenKey) -> asyncio.Task[CachedToken]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(key), name=f"mint-{key.kind}")
        self._mints[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: TokenKey, task: asyncio.Task[CachedToken]) -> None:
        del self._mints[key]
        if not task.cancelled():
            task.exception()  # seen by whoever waits, or by nobody in a background renewal

    async def _run(self, key: TokenKey) -> CachedToken:
        started = self._now()
        try:
            token = await self._mint(key)
        except MintError as exc:
            self._remember(key, exc)
            self._watcher.mint_failed(key, exc, self._now() - started)
            raise
        cached = self._keep(key, token)
        self._watcher.minted(key, cached, self._now() - started)
        return cached

    def _keep(self, key: TokenKey, token: AccessToken) -> CachedToken:
        self._generation += 1
        lifetime = token.expires_at - token.minted_at
        margin = min(self._config.refresh_margin, lifetime * MARGIN_SHARE)
        margin *= 1 - JITTER_SHARE * self._random()
        dead_at = token.expires_at - min(DEAD_SECONDS, lifetime * DEAD_SHARE)
        cached = CachedToken(
            token=token,
            generation=self._generation,
            authorization=b"Bearer " + token.secret.reveal().encode("ascii"),
            due_at=min(token.expires_at - margin, dead_at),
            dead_at=dead_at,
        )
        self._cached[key] = cached
        self._failures.pop(key, None)
        self._app_failure = None
        return cached

    # -- failures ---------------------------------------------------------------------------------

    def _failure(self, key: TokenKey, now: float) -> Failure | None:
        for failure in (self._app_failure, self._failures.get(key)):
            if failure is not None and failure.holds(now):
                return failure
        return None

    def _remember(self, key: TokenKey, error: MintError) -> None:
        """Keep a failure for as long as its kind deserves.

        One installation's refusal says nothing about others; a refused key or clock concerns all.
        """
        now = self._now()
        about_app = isinstance(error, AppKeyRefusedError)
        count = next_round(self._app_failure if about_app else self._failures.get(key), now)
        if isinstance(error, InstallationRefusedError):
            wait, count = self._config.negative_ttl, 0
        else:
            wait = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(count - 1, 10))
            wait *= 1 - JITTER_SHARE * self._random()
        wait = max(wait, min(error.retry_after or 0.0, RETRY_AFTER_MOST))
        failure = Failure(error=error, since=now, until=now + wait, count=count)
        if about_app:
            self._app_failure = failure
        else:
            self._failures[key] = failure

    # -- what the admin port shows ----------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[TokenKey, CachedToken]]:
        # Not `items()`: that would count as use, and the order of leaving would be lost.
        peek = Cache.__getitem__
        return iter([(key, peek(self._cached, key)) for key in self._cached])

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


def again(error: MintError, *, wait: float | None) -> MintError:
    """Give a new exception that says the same: one instance raised twice mixes up tracebacks."""
    return type(error)(error.detail, retry_after=wait)


def next_round(failure: Failure | None, now: float) -> int:
    """Count failures one after the other; mints that failed together failed once."""
    if failure is None:
        return 1
    return max(1, failure.count if failure.holds(now) else failure.count + 1)
