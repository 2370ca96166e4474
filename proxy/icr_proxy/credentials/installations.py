"""Installations of the app: listed page by page, and looked up by organization.

The response is not trusted further than needed: IDs must have the alphabet of IDs, URLs are ignored
(real payloads held `undefined/…`, V), names are for people and made printable, and the size of a
page and the number of pages are bounded. An unusable entry is skipped; it must not hide the others.

The list is fetched with the first look-up, renewed in the background, and fetched again for an
organization or an installation that is not in it. That happens at most every few seconds, so that
invented ones cause no storm. A list that cannot be renewed stays in use.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from icr_proxy.credentials.app_client import PERHAPS_REFUSED, SUCCESS, mint_error
from icr_proxy.errors import (
    DECODE_ERRORS,
    AppKeyRefusedError,
    MintError,
    MintTimeoutError,
    UpstreamError,
)
from icr_proxy.identifiers import canonical_id, is_id
from icr_proxy.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from icr_proxy.credentials.app_client import AppClient

PAGE_LIMIT = 8 * 1024 * 1024  # bytes; a hundred entries with a whole organization each have 100 KiB
PAGES_MOST = 1000
PAGE_SIZE = 100
SMALL_PAGE_SIZE = 10  # the documentation's example, if the API finds ours too large (D)
BAD_REQUEST = 400
PAST_THE_END = frozenset({400, 404})
NAME_MOST = 200  # characters
PERMISSION = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class ListedInstallation(msgspec.Struct, frozen=True, kw_only=True):
    """An installation of the app on one organization."""

    id: str
    organization_id: str | None = None
    organization_name: str = ""
    permissions: Mapping[str, str] = msgspec.field(default_factory=dict)


class ListResponse(Protocol):
    """A whole response; `body` is `None` if it was longer than allowed."""

    @property
    def status(self) -> int: ...  # noqa: D102  # the class says it

    @property
    def body(self) -> bytes | None: ...  # noqa: D102  # the class says it


class _Page(msgspec.Struct):
    installations: list[msgspec.Raw]
    pagination: object = None


class _Organization(msgspec.Struct, rename="camel"):
    id: str | None = None
    full_name: object = None
    name: object = None  # the documentation's webhook sample calls it so (D)


class _Entry(msgspec.Struct):
    id: str
    organization: _Organization | None = None
    permissions: object = None


async def list_installations(calls: AppClient) -> list[ListedInstallation]:
    """List all active installations of the app.

    Raises:
        AppKeyRefusedError: 401 or 403, about our key or clock.
        MintTimeoutError: the API took too long.
        MintError: any other status, no answer, or one that cannot be understood.
    """

    async def ask(target: bytes) -> ListResponse:
        try:
            return await calls.send("GET", target, limit=PAGE_LIMIT, refusals=PERHAPS_REFUSED)
        except UpstreamError as exc:
            raise mint_error(exc, wanted="the list of installations") from exc

    return await collect(ask)


async def collect(ask: Callable[[bytes], Awaitable[ListResponse]]) -> list[ListedInstallation]:
    """Read the pages until one is empty; `ask` returns the response to a GET of a target.

    Raises:
        AppKeyRefusedError: 401 or 403.
        MintError: another status, an answer that cannot be understood, or no end of pages.
    """
    found: dict[str, ListedInstallation] = {}
    size = PAGE_SIZE
    pages = 0  # as the last answer counted them
    for number in range(PAGES_MOST):
        answer = await ask(page_target(number, size=size))
        if number == 0 and answer.status == BAD_REQUEST:
            size = SMALL_PAGE_SIZE
            answer = await ask(page_target(number, size=size))
        if 0 < pages <= number and answer.status in PAST_THE_END:
            return list(found.values())
        page = read_page(answer)
        listed = [each for each in map(read_entry, page.installations) if each is not None]
        new = {each.id: each for each in listed if each.id not in found}
        found |= new
        pages = _count(page, "pageCount")
        # A page without news is the end, unless the API says itself that there is more: it may
        # ignore `page`, or count from one, so that the first page comes twice.
        more = _count(page, "total") > len(found) and number < pages
        if not page.installations or (not new and not more):
            return list(found.values())
    raise MintError("the API's list of installations does not end")


def page_target(number: int, *, size: int) -> bytes:
    """Return the target of a page; pages are counted from zero (D, V)."""
    return b"/app/installations?limit=%d&page=%d" % (size, number)


def read_page(answer: ListResponse) -> _Page:
    """Parse a page, without its entries.

    Raises:
        AppKeyRefusedError: 401 or 403.
        MintError: another status, or an answer that cannot be understood.
    """
    if answer.status in PERHAPS_REFUSED:  # no installation is asked for, so it is about the key
        raise AppKeyRefusedError(
            "the API refused the app's signature; check app.id, the private key and the clock"
        )
    if answer.status not in SUCCESS:
        raise MintError(
            f"the API answered {answer.status} instead of the installations",
            reason="status-4xx" if answer.status == BAD_REQUEST else None,
        )
    if answer.body is None:
        raise MintError("the API's list of installations is far too large")
    try:
        return msgspec.json.decode(answer.body, type=_Page)
    except DECODE_ERRORS:
        raise MintError("the API's list of installations cannot be understood") from None


def read_entry(raw: bytes | msgspec.Raw) -> ListedInstallation | None:
    """Parse an entry; `None` if its ID is none that a request could name."""
    try:
        entry = msgspec.json.decode(raw, type=_Entry)
    except DECODE_ERRORS:
        return None
    if not is_id(entry.id.encode()):
        return None
    organization = entry.organization or _Organization()
    known = organization.id is not None and is_id(organization.id.encode())
    return ListedInstallation(
        id=canonical_id(entry.id),
        organization_id=canonical_id(organization.id) if organization.id and known else None,
        organization_name=_name(organization.full_name) or _name(organization.name),
        permissions=_permissions(entry.permissions),
    )


def _name(found: object) -> str:
    """Return a name for people: no control characters, no line ends, bounded length."""
    if not isinstance(found, str):
        return ""
    return printable(found)[:NAME_MOST].strip()


def _permissions(found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {
        name: level
        for name, level in found.items()
        if isinstance(level, str) and PERMISSION.fullmatch(name) and PERMISSION.fullmatch(level)
    }


def _count(page: _Page, name: str) -> int:
    found = page.pagination.get(name) if isinstance(page.pagination, dict) else None
    return int(found) if isinstance(found, int | float) and 0 < found < PAGES_MOST**2 else 0


RENEW_SECONDS = 300.0
REFETCH_SECONDS = 10.0


class InstallationDirectory:
    """Cache of the installations, with the organization of each."""

    def __init__(
        self,
        *,
        fetch: Callable[[], Awaitable[Mapping[str, str | None]]],
        waiter_timeout: float,
        now: Callable[[], float],
        renewed: Callable[[int], None] = lambda _count: None,
        failed: Callable[[MintError], None] = lambda _error: None,
    ) -> None:
        """Look up through `fetch`, which returns organizations by installation, where known.

        A request waits at most `waiter_timeout` seconds for the list.
        """
        self._fetch = fetch
        self._waiter_timeout = waiter_timeout
        self._now = now
        self._renewed = renewed
        self._failed = failed
        self._organizations: Mapping[str, str | None] = {}
        self._installations: Mapping[str, str] = {}
        self._fetched_at: float | None = None
        self._failure: MintError | None = None
        self._fetching: asyncio.Task[Mapping[str, str | None]] | None = None

    async def lookup(self, organization: str) -> str | None:
        """Return the ID of the installation on an organization; `None` if there is none.

        Raises:
            MintError: it is unknown, and the list could not be fetched, and why.
        """
        known = self._installations.get(organization)
        if known is not None:
            if self._is_older_than(RENEW_SECONDS):
                self._start_fetch()
            return known
        await self._refetch()
        return self._installations.get(organization)

    async def look_up(self, installation: str) -> None:
        """Fetch the list again if an installation is not in it; `knows` then says whether it is.

        Raises:
            MintError: the list could not be fetched, and why.
        """
        if not self.knows(installation):
            await self._refetch()

    def knows(self, installation: str) -> bool:
        """Whether the API listed an installation when it was last asked."""
        return installation in self._organizations

    async def _refetch(self) -> None:
        """Fetch the list again, unless that was done a moment ago."""
        if self._fetching is not None or self._is_older_than(REFETCH_SECONDS):
            await self._wait_for_fetch(self._start_fetch())
        if self._failure is not None:
            raise self._failure.again(retry_after=REFETCH_SECONDS) from self._failure

    def _is_older_than(self, seconds: float) -> bool:
        # A clock that was set back makes the list old, not eternally young.
        return self._fetched_at is None or not 0 <= self._now() - self._fetched_at < seconds

    def _start_fetch(self) -> asyncio.Task[Mapping[str, str | None]]:
        if self._fetching is None:
            self._fetched_at = self._now()
            loop = asyncio.get_running_loop()
            self._fetching = loop.create_task(self._run(), name="list-installations")
            self._fetching.add_done_callback(self._on_fetched)
        return self._fetching

    async def _run(self) -> Mapping[str, str | None]:
        return await self._fetch()

    def _on_fetched(self, task: asyncio.Task[Mapping[str, str | None]]) -> None:
        """Store the result of a fetch; this runs before waiting requests continue."""
        self._fetching = None
        if task.cancelled():
            self._fetched_at = None
            return
        error = task.exception()
        if error is None:
            self._organizations, self._failure = task.result(), None
            self._installations = {on: each for each, on in self._organizations.items() if on}
            self._renewed(len(self._organizations))
            return
        self._failure = _as_mint_error(error)
        self._failed(self._failure)

    async def _wait_for_fetch(self, task: asyncio.Task[Mapping[str, str | None]]) -> None:
        """Wait for a fetch; `wait` cancels nothing it waits for (see `token_cache`)."""
        await asyncio.wait({task}, timeout=self._waiter_timeout)
        if not task.done():
            raise MintTimeoutError("the list of installations did not arrive in time; try again")
        if task.cancelled():
            raise MintError("the proxy is stopping")

    async def stop(self) -> None:
        """Cancel a renewal under way and wait until it is gone."""
        if self._fetching is not None:
            task = self._fetching
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _as_mint_error(error: BaseException) -> MintError:
    """Wrap an unexpected error in a bland `MintError`; its cause is for the log."""
    if isinstance(error, MintError):
        return error
    failure = MintError("the list of installations could not be had")
    failure.__cause__ = error
    return failure
