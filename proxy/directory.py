"""Which installation is on which organization, learnt from the API's list of installations.

The list is fetched when somebody first asks, renewed in the background, and asked again for an
organization that is not in it, at most every few seconds: an invented organization causes no
storm. A list that cannot be renewed stays in use for the organizations that are in it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.errors import MintError, MintFailedError, MintTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

RENEW_SECONDS = 300.0
ASK_AGAIN_SECONDS = 10.0


class Directory:
    """The map from organizations to installations."""

    def __init__(
        self,
        *,
        fetch: Callable[[], Awaitable[Mapping[str, str]]],
        waiter_timeout: float,
        now: Callable[[], float],
        renewed: Callable[[int], None] = lambda _count: None,
        failed: Callable[[MintError], None] = lambda _error: None,
    ) -> None:
        """Look up through `fetch`, which gives installation IDs by organization ID.

        A request waits at most `waiter_timeout` seconds for the list.
        """
        self._fetch = fetch
        self._waiter_timeout = waiter_timeout
        self._now = now
        self._renewed = renewed
        self._failed = failed
        self._installations: Mapping[str, str] = {}
        self._asked_at: float | None = None
        self._failure: MintError | None = None
        self._fetching: asyncio.Task[Mapping[str, str]] | None = None

    async def find(self, organization: str) -> str | None:
        """Give the ID of the installation on an organization; `None` if there is none.

        Raises:
            MintError: it is not known, and the list could not be had, and why.
        """
        known = self._installations.get(organization)
        if known is not None:
            if self._is_older_than(RENEW_SECONDS):
                self._start()
            return known
        if self._fetching is not None or self._is_older_than(ASK_AGAIN_SECONDS):
            await self._wait(self._start())
        if self._failure is not None:
            raise self._failure.again(retry_after=ASK_AGAIN_SECONDS) from self._failure
        return self._installations.get(organization)

    def organization_of(self, installation: str) -> str | None:
        """Give the organization an installation is on, as far as the list is known."""
        for organization, known in self._installations.items():
            if known == installation:
                return organization
        return None

    def _is_older_than(self, seconds: float) -> bool:
        # A clock that was set back makes the list old, not eternally young.
        return self._asked_at is None or not 0 <= self._now() - self._asked_at < seconds

    def _start(self) -> asyncio.Task[Mapping[str, str]]:
        if self._fetching is None:
            self._asked_at = self._now()
            loop = asyncio.get_running_loop()
            self._fetching = loop.create_task(self._run(), name="list-installations")
            self._fetching.add_done_callback(self._ended)
        return self._fetching

    async def _run(self) -> Mapping[str, str]:
        return await self._fetch()

    def _ended(self, task: asyncio.Task[Mapping[str, str]]) -> None:
        """Keep what came of it; runs before whoever waits goes on."""
        self._fetching = None
        if task.cancelled():
            self._asked_at = None
            return
        error = task.exception()
        if error is None:
            self._installations, self._failure = task.result(), None
            self._renewed(len(self._installations))
            return
        self._failure = _as_mint_error(error)
        self._failed(self._failure)

    async def _wait(self, task: asyncio.Task[Mapping[str, str]]) -> None:
        """Wait without owning: `wait` cancels nothing it waits for (see `tokens`)."""
        await asyncio.wait({task}, timeout=self._waiter_timeout)
        if not task.done():
            raise MintTimeoutError("the list of installations did not arrive in time; try again")
        if task.cancelled():
            raise MintFailedError("the proxy is stopping")

    async def stop(self) -> None:
        """Cancel a renewal under way and wait until it is gone."""
        if self._fetching is not None:
            task = self._fetching
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _as_mint_error(error: BaseException) -> MintError:
    """Say of a mistake of ours no more than that there is no list; its cause is for the log."""
    if isinstance(error, MintError):
        return error
    failure = MintFailedError("the list of installations could not be had")
    failure.__cause__ = error
    return failure
