"""Tokens killed at an API that follows a script."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from icr_proxy.credentials.access_token import AccessToken
from icr_proxy.credentials.token_exchange import CONCURRENT_MOST, Revocation, Revoker
from icr_proxy.redaction import Secret
from tests.support.app_fixture import Visit, ok, pool_to, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.app_fixture import ScriptedUpstream

GONE = b"HTTP/1.1 204 No Content\r\n\r\n"


def tokens(number: int) -> list[AccessToken]:
    secrets = [Secret(f"crs_{each}") for each in range(number)]
    return [
        AccessToken(secret=secret, minted_at=0.0, expires_at=7200.0, fingerprint=secret.fingerprint)
        for secret in secrets
    ]


@asynccontextmanager
async def revoker(
    script: Callable[[Visit, bytes], Awaitable[None]],
    *,
    patience: float = 5.0,
    connections: int = 50,
) -> AsyncIterator[tuple[Revoker, ScriptedUpstream]]:
    async with scripted_upstream(script) as api:
        with pool_to(api.url, connections=connections, connect=0.5) as pool:
            headers = [(b"Host", b"api"), (b"User-Agent", b"icr-proxy/x")]
            yield (
                Revoker(upstream=pool, headers=headers, timeout=patience, connections=connections),
                api,
            )


async def gone(visit: Visit, _head: bytes) -> None:
    await visit.say(GONE)


def answering(answer: bytes) -> Callable[[Visit, bytes], Awaitable[None]]:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(answer)

    return script


async def test_a_token_is_killed_by_itself() -> None:
    async with revoker(gone) as (revoking, api):
        result = await revoking.revoke(tokens(1), seconds=5)

    assert result == Revocation(left=0, revoked=1)
    (head,) = api.heads
    assert head.startswith(b"DELETE /app/installations/token HTTP/1.1\r\n")
    assert b"Authorization: Bearer crs_0\r\n" in head
    assert b"Host: api\r\n" in head


@pytest.mark.parametrize(
    "answer",
    [
        GONE,
        ok(b'{"id":"x"}'),
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=["204", "200", "202", "dead already, 401", "dead already, 403"],
)
async def test_these_answers_mean_that_it_is_dead(answer: bytes) -> None:
    async with revoker(answering(answer)) as (revoking, _):
        result = await revoking.revoke(tokens(3), seconds=5)

    assert result == Revocation(left=0, revoked=3)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=["500", "404", "302", "no HTTP"],
)
async def test_these_do_not(answer: bytes) -> None:
    async with revoker(answering(answer)) as (revoking, _):
        result = await revoking.revoke(tokens(2), seconds=5)

    assert result == Revocation(left=0, failed=2)


async def test_one_failure_stops_no_other() -> None:
    async def script(visit: Visit, head: bytes) -> None:
        if b"crs_1\r\n" in head:
            visit.reset()
        else:
            await visit.say(GONE)

    async with revoker(script) as (revoking, _):
        result = await revoking.revoke(tokens(20), seconds=5)

    assert result == Revocation(left=0, revoked=19, failed=1)


async def test_each_token_is_killed_once_on_few_connections() -> None:
    async with revoker(gone) as (revoking, api):
        result = await revoking.revoke(tokens(200), seconds=5)

    assert result == Revocation(left=0, revoked=200)
    assert len(set(api.heads)) == len(api.heads) == 200
    assert api.visits <= CONCURRENT_MOST


async def test_few_connections_are_enough() -> None:
    async with revoker(gone, connections=1) as (revoking, api):
        result = await revoking.revoke(tokens(50), seconds=5)

    assert result == Revocation(left=0, revoked=50)
    assert api.visits == 1


async def test_a_body_is_read_so_that_its_connection_serves_the_next() -> None:
    async with revoker(answering(ok(b"x" * 1000))) as (revoking, api):
        await revoking.revoke(tokens(100), seconds=5)

    assert api.visits <= CONCURRENT_MOST


async def test_a_connection_that_was_closing_costs_no_token() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        if visit.number == 1 and len(api.heads) > 1:
            visit.reset()
        else:
            await visit.say(GONE)

    async with revoker(script) as (revoking, api):
        first = await revoking.revoke(tokens(1), seconds=5)
        second = await revoking.revoke(tokens(1), seconds=5)

    assert first == second == Revocation(left=0, revoked=1)
    assert api.visits == 2


async def hang(_visit: Visit, _head: bytes) -> None:
    await asyncio.Event().wait()


async def test_an_api_that_hangs_takes_no_longer_than_it_may() -> None:
    loop = asyncio.get_running_loop()
    async with revoker(hang) as (revoking, api):
        began = loop.time()
        result = await revoking.revoke(tokens(30), seconds=0.2)
        took = loop.time() - began

    assert result == Revocation(left=30)
    assert took < 2
    assert len(api.heads) <= CONCURRENT_MOST


async def test_a_token_that_hangs_holds_up_the_others_for_its_time_only() -> None:
    async def script(visit: Visit, head: bytes) -> None:
        if b"crs_0\r\n" in head:
            await asyncio.Event().wait()
        await visit.say(GONE)

    async with revoker(script, patience=0.2) as (revoking, _):
        result = await revoking.revoke(tokens(5), seconds=10)

    assert result == Revocation(left=0, revoked=4, failed=1)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_without_time_nothing_is_sent(seconds: float) -> None:
    async with revoker(gone) as (revoking, api):
        result = await revoking.revoke(tokens(3), seconds=seconds)

    assert result == Revocation(left=3)
    assert api.visits == 0


async def test_without_tokens_nothing_is_sent() -> None:
    async with revoker(gone) as (revoking, api):
        result = await revoking.revoke([], seconds=5)

    assert result == Revocation(left=0)
    assert api.visits == 0


async def test_an_api_that_is_not_there_is_told() -> None:
    async with revoker(gone) as (_, api):
        url = api.url
    with pool_to(url) as pool:
        result = await Revoker(upstream=pool, headers=(), timeout=5, connections=10).revoke(
            tokens(2), seconds=5
        )

    assert result == Revocation(left=0, failed=2)


async def test_cancelled_it_ends_at_once() -> None:
    """A second SIGTERM waits for nothing."""
    async with revoker(hang) as (revoking, api):
        task = asyncio.ensure_future(revoking.revoke(tokens(3), seconds=60))
        while not api.heads:  # noqa: ASYNC110 - the script tells nobody
            await asyncio.sleep(0.01)

        task.cancel()
        await asyncio.wait({task}, timeout=2)

    assert task.cancelled()
