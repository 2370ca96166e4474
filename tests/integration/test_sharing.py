"""Several replicas and one Redis, whatever becomes of it: no request suffers, and few mints."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from icr_proxy.config.inbound_models import TokensConfig
from icr_proxy.emulator.server import Emulator
from icr_proxy.redaction import Secret
from tests.support.app_fixture import RunningProxy, call, proxy_before, request_head
from tests.support.fake_redis import TinyRedis, tiny_redis
from tests.support.program import program_before
from tests.support.replicas import until

TIMEOUT = 0.2
PATIENT = 10.0  # seconds: a busy machine is no Redis that has gone


@asynccontextmanager
async def replicas_before(
    emulator: Emulator, *urls: str, patience: float = PATIENT
) -> AsyncIterator[tuple[RunningProxy, RunningProxy]]:
    one, other = (
        TokensConfig(shared=Secret(url), shared_timeout=patience) for url in (urls * 2)[:2]
    )
    async with (
        proxy_before(emulator, tokens=one) as first,
        proxy_before(emulator, tokens=other) as second,
    ):
        yield first, second


def requests_for(emulator: Emulator) -> list[bytes]:
    return [
        request_head(target=f"/organizations/{one.organization.id}/inventory", tag=one.id)
        for one in emulator.world.installations.values()
    ]


async def ask_all(
    emulator: Emulator, replicas: tuple[RunningProxy, ...], *, times: int = 5
) -> Counter[int]:
    answers = await asyncio.gather(
        *(
            call(replica.port, request)
            for request in requests_for(emulator) * times
            for replica in replicas
        )
    )
    return Counter(answer.status for answer in answers)


def subscribed(redis: TinyRedis) -> bool:
    return redis.asked.count("SUBSCRIBE") >= 2


async def test_replicas_have_one_token_made_for_each_installation(emulator: Emulator) -> None:
    async with tiny_redis() as redis, replicas_before(emulator, redis.url) as replicas:
        statuses = await ask_all(emulator, replicas)
        counts = [
            Counter({result: each.metric("shared_tokens_total", result=result)
                     for result in ("found", "minted", "alone")})
            for each in replicas
        ]  # fmt: skip
        minted = sum(each.metric("token_mints_total", kind="installation", result="ok")
                     for each in replicas)  # fmt: skip

        assert statuses == {200: 30}
        assert set(emulator.world.mints.values()) == {1}
        assert counts[0] + counts[1] == {"found": 3, "minted": 3}
        assert minted == 3
        assert [each.metric("shared_up") for each in replicas] == [1, 1]


async def test_a_token_that_one_replica_drops_is_dropped_by_all(emulator: Emulator) -> None:
    installation = next(iter(emulator.world.installations))
    async with tiny_redis() as redis, replicas_before(emulator, redis.url) as replicas:
        await until(lambda: subscribed(redis))
        await ask_all(emulator, replicas)
        tokens = replicas[1].app.credentials.tokens
        post = f"POST /tokens/{installation}/drop HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        await call(int(replicas[0].app.admin.address.rpartition(":")[2]), post)
        await until(lambda: installation not in {key.installation for key, _ in tokens})
        await ask_all(emulator, replicas)

        assert emulator.world.mints[installation] == 2
        assert sum(emulator.world.mints.values()) == 4


async def test_a_token_that_was_refused_is_renewed_once_for_all(emulator: Emulator) -> None:
    installation = next(iter(emulator.world.installations))
    async with tiny_redis() as redis, replicas_before(emulator, redis.url) as replicas:
        await ask_all(emulator, replicas)
        emulator.world.revoke_all(installation)
        statuses = [await ask_all(emulator, (each,), times=1) for each in replicas]

        assert statuses == [{200: 3}] * 2
        assert emulator.world.mints[installation] == 2


# -- Redis is unwell ------------------------------------------------------------------------------


async def be_killed(redis: TinyRedis) -> None:
    await redis.kill()


async def be_flushed(redis: TinyRedis) -> None:
    redis.values.clear()


async def be_restarted(redis: TinyRedis) -> None:
    await redis.kill()
    redis.values.clear()
    await redis.start()


async def be_garbled(redis: TinyRedis) -> None:
    for name in list(redis.values):
        redis.put(name, b"\xff\x00 garbage")


def be(mood: str) -> Callable[[TinyRedis], Awaitable[None]]:
    async def turn(redis: TinyRedis) -> None:
        redis.mood = mood

    return turn


UNWELL = [
    pytest.param(be_killed, id="killed"),
    pytest.param(be_restarted, id="restarted empty"),
    pytest.param(be_flushed, id="flushed"),
    pytest.param(be_garbled, id="garbage values"),
    *(pytest.param(be(mood), id=mood) for mood in ("hangs", "slow", "babbles", "full", "rude")),
]


@pytest.mark.parametrize("become", UNWELL)
async def test_no_request_fails_or_waits_for_long_because_redis_is_unwell(
    emulator: Emulator, become: Callable[[TinyRedis], Awaitable[None]]
) -> None:
    """Each replica needs each token anew."""
    async with (
        tiny_redis() as redis,
        replicas_before(emulator, redis.url, patience=TIMEOUT) as replicas,
    ):
        await ask_all(emulator, replicas)
        await become(redis)
        for installation in emulator.world.installations:
            emulator.world.revoke_all(installation)
        statuses = await ask_all(emulator, replicas)

        assert statuses == {200: 30}  # a caller who waits for over ten seconds gets none
        # Three a replica both times; again where a refusal was heard before the token that heals.
        assert sum(emulator.world.mints.values()) <= 2 * 3 + 2 * 3 * 2
        for each in replicas:
            assert 0 <= len(each.log("shared.lost")) - len(each.log("shared.back")) <= 1


@pytest.mark.parametrize("mood", ["hangs", "babbles", "full", "rude", "gone"])
async def test_a_replica_starts_and_serves_however_unwell_redis_is(
    emulator: Emulator, mood: str
) -> None:
    async with tiny_redis(mood=mood) as redis:
        if mood == "gone":
            await redis.kill()
        async with replicas_before(emulator, redis.url, patience=TIMEOUT) as replicas:
            assert await ask_all(emulator, replicas) == {200: 30}
            assert set(emulator.world.mints.values()) == {2}
            await until(lambda: all(each.log("shared.lost") for each in replicas))
            assert [len(each.log("shared.lost")) for each in replicas] == [1, 1]
            assert [each.metric("shared_up") for each in replicas] == [0, 0]


async def test_a_wrong_password_is_told_and_nothing_else_suffers(emulator: Emulator) -> None:
    async with (
        tiny_redis(password="right") as redis,
        replicas_before(
            emulator,
            f"redis://:right@127.0.0.1:{redis.port}",
            f"redis://:hush@127.0.0.1:{redis.port}",
        ) as replicas,
    ):
        assert await ask_all(emulator, replicas) == {200: 30}
        await until(lambda: replicas[1].log("shared.lost"))
        [lost] = replicas[1].log("shared.lost")

        assert lost["reason"] == "credentials"
        assert replicas[0].log("shared.lost") == []
        assert b"hush" not in replicas[1].stream.getvalue()


async def test_it_is_told_when_redis_is_back_and_tokens_are_shared_again(
    emulator: Emulator,
) -> None:
    async with tiny_redis() as redis, replicas_before(emulator, redis.url) as replicas:
        await until(lambda: subscribed(redis))  # or it is lost a second time, by who still begins
        await redis.kill()
        await ask_all(emulator, replicas)
        degraded = [json.loads(await status_of(each))["degraded"] for each in replicas]
        await redis.start()
        await until(lambda: all(each.log("shared.back") for each in replicas))
        for installation in emulator.world.installations:
            emulator.world.revoke_all(installation)
        emulator.world.mints.clear()
        statuses = [await ask_all(emulator, (each,)) for each in replicas]

        assert degraded == [["shared-lost"]] * 2
        assert statuses == [{200: 15}] * 2
        assert set(emulator.world.mints.values()) == {1}
        assert [len(each.log("shared.back")) for each in replicas] == [1, 1]


async def status_of(replica: RunningProxy) -> bytes:
    port = int(replica.app.admin.address.rpartition(":")[2])
    return (await call(port, b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")).body


async def test_a_replica_that_stops_leaves_the_others_their_tokens(
    emulator: Emulator, tmp_path: Path
) -> None:
    """The real program, told to stop."""
    async with tiny_redis() as redis:
        shared = {"ICR_PROXY_TOKENS__SHARED": redis.url}
        async with (
            program_before(emulator, tmp_path, **shared) as one,
            program_before(emulator, tmp_path, **shared) as other,
        ):
            for request in requests_for(emulator):
                assert (await call(one.port, request)).status == 200
            one.process.terminate()
            assert await one.end() == 0
            for request in requests_for(emulator):
                assert (await call(other.port, request)).status == 200

    assert set(emulator.world.mints.values()) == {1}
    assert [line for line in one.lines if "crs_" in str(line)] == []
