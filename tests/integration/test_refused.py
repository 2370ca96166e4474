"""Tokens that the API refuses: healed unseen; a refusal that is not about them passes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.app_fixture import (
    Visit,
    call,
    config_for,
    ok,
    proxy_before,
    request_head,
    running,
    scripted_upstream,
)

if TYPE_CHECKING:
    from icr_proxy.emulator.server import Emulator

REFUSED = b'{"statusCode":403,"message":"Access token invalid","error":"Forbidden"}'
FORBIDDEN = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(REFUSED), REFUSED)
)
BODY = b'{"amount":1}'
POST = request_head("POST", "/v1/retire", extra=f"Content-Length: {len(BODY)}\r\n") + BODY


def bearer(head: bytes) -> bytes:
    return next(x for x in head.split(b"\r\n") if x.startswith(b"Authorization: "))


async def test_a_young_token_gets_one_short_wait_on_a_read() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(FORBIDDEN if len(api.heads) == 1 else ok())

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        answer = await call(proxy.port, request_head())

        assert answer.status == 200
        assert api.mints == 1
        assert bearer(api.heads[0]) == bearer(api.heads[1])
        assert proxy.metric("replays_total", result="young-healed") == 1
        assert proxy.metric("token_refusals_total", reason="dropped") == 0


async def test_a_young_token_that_stays_refused_is_replaced() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(FORBIDDEN if len(api.heads) <= 2 else ok())

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        answer = await call(proxy.port, request_head())

        assert answer.status == 200
        assert (len(api.heads), api.mints) == (3, 2)
        assert bearer(api.heads[2]) != bearer(api.heads[0])
        assert proxy.metric("replays_total", result="young-refused") == 1
        assert proxy.metric("replays_total", result="healed") == 1


async def test_a_write_does_not_wait_but_is_replayed_once_with_a_new_token() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.reader.readexactly(len(BODY))
        await visit.say(FORBIDDEN if len(api.heads) == 1 else ok())

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        answer = await call(proxy.port, POST)

        assert answer.status == 200
        assert (len(api.heads), api.mints) == (2, 2)
        assert proxy.log("request.done")[0]["attempts"] == 2


async def test_an_api_that_refuses_every_token_causes_no_storm_of_mints() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.reader.readexactly(len(BODY))
        await visit.say(FORBIDDEN)

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        answers = [await call(proxy.port, POST) for _ in range(50)]
        answers += await asyncio.gather(*(call(proxy.port, POST) for _ in range(50)))

        assert {answer.status for answer in answers} == {403}
        assert {answer.body for answer in answers} == {REFUSED}
        assert api.mints <= 7
        assert proxy.metric("token_refusals_total", reason="limited") > 0


async def test_a_missing_permission_passes_and_causes_no_mint(emulator: Emulator) -> None:
    mine, other = list(emulator.world.installations.values())[:2]
    foreign = f"/organizations/{other.organization.id}/inventory"

    async with proxy_before(emulator) as proxy:
        answers = [
            await call(proxy.port, request_head(target=foreign, tag=mine.id)) for _ in range(5)
        ]

    assert {answer.status for answer in answers} == {403}
    assert {answer.values(b"X-ICR-Proxy-Error") == [] for answer in answers} == {True}
    assert emulator.world.mints == {mine.id: 1}
