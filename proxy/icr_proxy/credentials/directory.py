"""Which installation is on which organization, learnt from the API's list of installations.

The list is fetched when somebody first asks, renewed in the background, and asked again for an
organization or an installation that is not in it, at most every few seconds: an invented one causes
no storm. A list that cannot be renewed stays in use for what is in it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from icr_proxy.errors import MintError, MintFailedError, MintTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

RENEW_SECONDS = 300.0
ASK_AGAIN_SECONDS = 10.0


class Directory:
    """The app's installations, and the organization that each is on."""

    def __init__(
        self,
        *,
        fetch: Callable[[], Awaitable[Mapping[str, str | None]]],
        waiter_timeout: float,
        now: Callable[[], float],
        renewed: Callable[[int], None] = lambda _count: None,
        failed: Callable[[MintError], None] = lambda _error: None,
    ) -> None:
        """Look up through `fetch`, which gives organizations by installation, where they are told.

        A request waits at most `waiter_timeout` seconds for the list.
        """
        self._fetch = fetch
        self._waiter_timeout = waiter_timeout
        self._now = now
        self._renewed = renewed
        self._failed = failed
        self._organizations: Mapping[str, str | None] = {}
        self._installations: Mapping[str, str] = {}
        self._asked_at: float | None = None
        self._failure: MintError | None = None
        self._fetching: asyncio.Task[Mapping[str, str | None]] | None = None

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
        await self._ask_again()
        return self._installations.get(organization)

    async def look_up(self, installation: str) -> None:
        """Have the list anew if an installation is not in it; `knows` then says whether it is.

        Raises:
            MintError: the list could not be had, and why.
        """
        if not self.knows(installation):
            await self._ask_again()

    def knows(self, installation: str) -> bool:
        """Whether the API listed an installation when it was last asked."""
        return installation in self._organizations

    async def _ask_again(self) -> None:
        """Have the list anew, unless it was asked for a moment ago."""
        if self._fetching is not None or self._is_older_than(ASK_AGAIN_SECONDS):
            await self._wait(self._start())
        if self._failure is not None:
            raise self._failure.again(retry_after=ASK_AGAIN_SECONDS) from self._failure

    def _is_older_than(self, seconds: float) -> bool:
        # A clock that was set back makes the list old, not eternally young.
        return self._asked_at is None or not 0 <= self._now() - self._asked_at < seconds

    def _start(self) -> asyncio.Task[Mapping[str, str | None]]:
        if self._fetching is None:
            self._asked_at = self._now()
            loop = asyncio.get_running_loop()
            self._fetching = loop.create_task(self._run(), name="list-installations")
            self._fetching.add_done_callback(self._ended)
        return self._fetching

    async def _run(self) -> Mapping[str, str | None]:
        return await self._fetch()

    def _ended(self, task: asyncio.Task[Mapping[str, str | None]]) -> None:
        """Keep what came of it; runs before whoever waits goes on."""
        self._fetching = None
        if task.cancelled():
            self._asked_at = None
            return
        error = task.exception()
        if error is None:
            self._organizations, self._failure = task.result(), None
            self._installations = {on: each for each, on in self._organizations.items() if on}
            self._renewed(len(self._organizations))
            return
        self._failure = _as_mint_error(error)
        self._failed(self._failure)

    async def _wait(self, task: asyncio.Task[Mapping[str, str | None]]) -> None:
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
