"""The list of installations: all pages, bounded, and nothing in it believed without need."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest

from icr_proxy.config.models import TimeoutsConfig
from icr_proxy.credentials import installations
from icr_proxy.credentials.app_client import AppClient
from icr_proxy.credentials.installations import (
    ListedInstallation,
    collect,
    list_installations,
    read_entry,
)
from icr_proxy.errors import AppKeyRefusedError, MintError, MintTimeoutError, ProxyError
from icr_proxy.upstream.dialer import parse_address
from icr_proxy.upstream.pool import Pool
from tests.support.app_fixture import Noted, Visit, ok, scripted_upstream

NOW = 1_700_000_000.0


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes | None = b"{}"


def page(*ids: str, **pagination: object) -> Reply:
    entries = [{"id": each, "organization": {"id": f"org-{each}"}} for each in ids]
    return Reply(body=json.dumps({"installations": entries, "pagination": pagination}).encode())


def script(*replies: Reply) -> tuple[Callable[[bytes], Awaitable[Reply]], list[str]]:
    """Give what answers with these, the last one for ever, and what it was asked."""
    asked: list[str] = []

    async def ask(target: bytes) -> Reply:
        asked.append(target.decode().partition("?")[2])
        return replies[min(len(asked), len(replies)) - 1]

    return ask, asked


async def ids_from(*replies: Reply) -> list[str]:
    ask, _ = script(*replies)
    return [each.id for each in await collect(ask)]


async def test_pages_are_followed_until_one_is_empty() -> None:
    ask, asked = script(page("a", "b"), page("c"), page())

    found = await collect(ask)

    assert [each.id for each in found] == ["a", "b", "c"]
    assert asked == ["limit=100&page=0", "limit=100&page=1", "limit=100&page=2"]


async def test_an_api_that_ignores_the_page_ends_when_nothing_new_comes() -> None:
    ask, asked = script(page("a", "b"))

    assert len(await collect(ask)) == 2
    assert len(asked) == 2


async def test_an_api_that_counts_pages_from_one_loses_nobody() -> None:
    first = page("a", total=3, pageCount=3)

    found = await ids_from(
        first, first, page("b", total=3, pageCount=3), page("c", total=3, pageCount=3), page()
    )

    assert found == ["a", "b", "c"]


async def test_a_promise_of_more_that_never_comes_ends_with_the_pages() -> None:
    ask, asked = script(page("a", total=500, pageCount=4))

    assert len(await collect(ask)) == 1
    assert len(asked) == 5


async def test_an_error_past_the_last_page_is_the_end() -> None:
    assert await ids_from(page("a", pageCount=1), Reply(404)) == ["a"]


async def test_an_error_before_the_last_page_is_an_error() -> None:
    with pytest.raises(MintError, match="404"):
        await ids_from(page("a", pageCount=2), Reply(404))


async def test_a_page_size_that_the_api_finds_too_large_is_made_smaller() -> None:
    ask, asked = script(Reply(400), page("a"), page())

    assert len(await collect(ask)) == 1
    assert asked == ["limit=100&page=0", "limit=10&page=0", "limit=10&page=1"]


async def test_a_list_without_end_is_given_up() -> None:
    count = 0

    async def ask(_: bytes) -> Reply:
        nonlocal count
        count += 1
        return page(f"i{count}")

    with pytest.raises(MintError, match="does not end"):
        await collect(ask)
    assert count == installations.PAGES_MOST


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        pytest.param(Reply(401), AppKeyRefusedError, id="401"),
        pytest.param(Reply(403), AppKeyRefusedError, id="403"),
        pytest.param(Reply(500), MintError, id="500"),
        pytest.param(Reply(302), MintError, id="redirect"),
        pytest.param(Reply(body=None), MintError, id="too large"),
        pytest.param(Reply(body=b"<html>"), MintError, id="no JSON"),
        pytest.param(Reply(body=b"\xff"), MintError, id="no UTF-8"),
        pytest.param(Reply(body=b"[" * 100_000), MintError, id="a tower"),
        pytest.param(Reply(body=b'{"installations": 3}'), MintError, id="no list"),
        pytest.param(Reply(body=b"[]"), MintError, id="no object"),
    ],
)
async def test_what_is_no_list_is_an_error(reply: Reply, error: type[ProxyError]) -> None:
    with pytest.raises(error):
        await ids_from(reply)


async def test_an_entry_that_cannot_be_used_hides_no_other() -> None:
    body = b'{"installations": [{"id": 3}, {"id": "../x"}, {"id": "null"}, {}, 7, {"id": "a"}]}'

    assert await ids_from(Reply(body=body), page()) == ["a"]


@pytest.mark.parametrize("pagination", [None, 3, [], {"total": "many", "pageCount": True}])
async def test_a_strange_pagination_is_passed_over(pagination: object) -> None:
    body = json.dumps({"installations": [{"id": "a"}], "pagination": pagination}).encode()

    assert await ids_from(Reply(body=body), page()) == ["a"]


def test_an_entry_is_read_without_its_urls() -> None:
    entry = {
        "id": "i-1",
        "accessTokensUrl": "undefined/app/installations/i-1/accessTokens",
        "permissions": {"organization_info": "VIEW", "a b": "VIEW", "x": 3, "y": "\x1b"},
        "organization": {"id": "o-1", "fullName": " Fjord\x1b[2J \n Carbon ", "url": "undefined/o"},
    }

    assert read_entry(json.dumps(entry).encode()) == ListedInstallation(
        id="i-1",
        organization_id="o-1",
        organization_name="Fjord[2J  Carbon",
        permissions={"organization_info": "VIEW"},
    )


@pytest.mark.parametrize(
    ("more", "organization", "name"),
    [
        pytest.param({}, None, "", id="no organization"),
        pytest.param({"organization": None}, None, "", id="null"),
        pytest.param({"organization": {"id": "o/1", "name": "N"}}, None, "N", id="bad id"),
        pytest.param({"organization": {"id": "o", "fullName": 3}}, "o", "", id="bad name"),
        pytest.param({"permissions": ["VIEW"]}, None, "", id="bad permissions"),
    ],
)
def test_what_is_missing_is_empty(
    more: dict[str, Any], organization: str | None, name: str
) -> None:
    found = read_entry(json.dumps({"id": "i", **more}).encode())

    assert found == ListedInstallation(id="i", organization_id=organization, organization_name=name)


# -- over HTTP ------------------------------------------------------------------------------------


class Key:
    """A `Signer` whose signature can be read."""

    def __init__(self, name: str) -> None:
        self.fingerprint = name

    def sign(self, claims: Mapping[str, object]) -> str:
        return f"{self.fingerprint}.{claims['iat']}"


class Ring:
    """A ring of such keys."""

    def __init__(self, *names: str) -> None:
        self._keys = [Key(name) for name in names]

    def candidates(self) -> Sequence[Key]:
        return self._keys

    def accepted(self, fingerprint: str) -> None:
        """Remember nothing."""

    def refused(self, fingerprint: str) -> None:
        """Remember nothing."""


async def fetch(
    url: str, *, ring: Ring | None = None, connections: int = 1, **timeouts: float
) -> list[ListedInstallation]:
    pool = Pool(
        parse_address(url, ca_file=None),
        timeouts=TimeoutsConfig(**timeouts),
        connections=connections,
        now=lambda: 0.0,
        watcher=Noted(),
    )
    calls = AppClient(
        app_id="app",
        signers=ring or Ring("key"),
        upstream=pool,
        headers=[(b"Host", b"api")],
        now=lambda: NOW,
    )
    try:
        return await list_installations(calls)
    finally:
        pool.close()


async def test_pages_are_asked_for_with_the_apps_signature() -> None:
    pages = [page("a"), page()]

    async def answer(visit: Visit, _: bytes) -> None:
        await visit.say(ok(pages.pop(0).body or b""))

    async with scripted_upstream(answer) as upstream:
        found = await fetch(upstream.url)

    assert found[0].organization_id == "org-a"
    assert upstream.heads[0] == (
        b"GET /app/installations?limit=100&page=0 HTTP/1.1\r\n"
        b"Host: api\r\nAuthorization: Bearer key.1699999940\r\n\r\n"
    )


@pytest.mark.parametrize("status", [401, 403])
async def test_a_list_survives_a_key_that_was_deleted(status: int) -> None:
    pages = [page("a"), page()]

    async def answer(visit: Visit, head: bytes) -> None:
        if b"Bearer old" in head:
            await visit.say(ok().replace(b"200", b"%d" % status))
        else:
            await visit.say(ok(pages.pop(0).body or b""))

    async with scripted_upstream(answer) as upstream:
        found = await fetch(upstream.url, ring=Ring("old", "new"))

    assert [each.id for each in found] == ["a"]


async def test_a_list_survives_a_clock_that_is_wrong() -> None:
    pages = [page("a"), page()]
    date = f"Date: {formatdate(NOW + 1200, usegmt=True)}\r\n".encode()

    async def answer(visit: Visit, head: bytes) -> None:
        if b"Bearer key.1699999940" in head:
            await visit.say(ok(headers=date).replace(b"200", b"401"))
        else:
            await visit.say(ok(pages.pop(0).body or b"", headers=date))

    async with scripted_upstream(answer) as upstream:
        found = await fetch(upstream.url)

    assert [each.id for each in found] == ["a"]


async def test_a_connection_that_closed_while_idle_is_replaced() -> None:
    pages = [page("a"), page("b"), page()]

    async def answer(visit: Visit, _: bytes) -> None:
        if visit.number == 1 and len(pages) == 2:
            raise ConnectionResetError
        await visit.say(ok(pages.pop(0).body or b""))

    async with scripted_upstream(answer) as upstream:
        assert len(await fetch(upstream.url)) == 2


async def test_a_page_that_is_too_large_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installations, "PAGE_LIMIT", 1000)

    async def answer(visit: Visit, _: bytes) -> None:
        await visit.say(ok(b" " * 1001))

    async with scripted_upstream(answer) as upstream:
        with pytest.raises(MintError, match="too large"):
            await fetch(upstream.url)


async def test_an_api_that_breaks_off_gives_no_list() -> None:
    async def answer(visit: Visit, _: bytes) -> None:
        visit.reset()

    async with scripted_upstream(answer) as upstream:
        with pytest.raises(MintError, match="could not be asked"):
            await fetch(upstream.url)


async def test_an_api_that_stalls_gives_no_list() -> None:
    async def answer(visit: Visit, _: bytes) -> None:
        await visit.reader.read()

    async with scripted_upstream(answer) as upstream:
        with pytest.raises(MintTimeoutError):
            await fetch(upstream.url, first_byte=0.1)


def test_an_id_in_uuid_form_has_one_spelling() -> None:
    low = "3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11"
    entry = {"id": low.upper(), "organization": {"id": low.upper()}}

    found = read_entry(json.dumps(entry).encode())

    assert found is not None
    assert (found.id, found.organization_id) == (low, low)
