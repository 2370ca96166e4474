import asyncio
from collections.abc import AsyncIterator

import pytest

from icr_proxy.identifiers import TokenKey
from tests.support.fake_redis import TinyRedis, tiny_redis
from tests.support.replicas import ONE, PLACE, TWO, Mints, replica

ENTRY = PLACE.redis_keys(ONE).entry.encode()


@pytest.fixture
async def redis() -> AsyncIterator[TinyRedis]:
    async with tiny_redis() as running:
        yield running


async def test_a_refused_token_leaves_redis(redis: TinyRedis) -> None:
    async with replica(redis, Mints()) as one:
        token = await one.single_flight.mint(ONE)
        one.invalidations.invalidate(ONE, token.fingerprint)
        await one.invalidations.wait_until_sent(ONE)

        assert redis.names("token") == []


async def test_a_newer_token_stays_when_an_older_one_was_refused(redis: TinyRedis) -> None:
    mints = Mints()
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        old = await one.single_flight.mint(ONE)
        other.invalidations.invalidate(ONE, None)
        await other.invalidations.wait_until_sent(ONE)
        new = await other.mint()
        one.invalidations.invalidate(ONE, old.fingerprint)

        assert await one.mint() == new


async def test_who_drops_one_mints_only_after_that_was_said(redis: TinyRedis) -> None:
    async with replica(redis, Mints()) as one:
        await one.mint()
        one.invalidations.invalidate(ONE, None)

        assert await one.mint() == "crs_in-1_2"


async def test_what_others_drop_is_heard_and_what_we_say_is_not(redis: TinyRedis) -> None:
    async with replica(redis, Mints()) as one, replica(redis, Mints()) as other:
        one.invalidations.invalidate(ONE, "0123456789ab")
        await one.invalidations.wait_until_sent(ONE)
        notice = other.invalidations.receive(redis.heard[0])

        assert one.invalidations.receive(redis.heard[0]) is None
        assert notice is not None
        assert (notice.key, notice.fingerprint) == (ONE, "0123456789ab")
        assert other.invalidations.is_invalidated("0123456789ab")
        assert not other.invalidations.is_invalidated("ba9876543210")


@pytest.mark.parametrize("data", [None, b"garbage"], ids=repr)
async def test_what_none_of_us_has_said_is_not_heard(redis: TinyRedis, data: object) -> None:
    async with replica(redis, Mints()) as one:
        assert one.invalidations.receive(data) is None


async def test_what_cannot_be_said_is_said_later(redis: TinyRedis) -> None:
    async with replica(redis, Mints()) as one:
        await one.mint()
        await redis.kill()
        one.invalidations.invalidate(ONE, None)
        one.invalidations.invalidate(ONE, "0123456789ab")
        one.invalidations.invalidate(TWO, None)
        await one.invalidations.wait_until_sent(ONE)
        await one.invalidations.wait_until_sent(TWO)
        assert not await one.invalidations.send_unsent()
        await redis.start()

        assert await one.invalidations.send_unsent()
        assert redis.names("token") == []
        assert len(redis.heard) == 3


async def test_no_more_is_kept_to_be_said_than_there_is_room_for(redis: TinyRedis) -> None:
    await redis.kill()
    async with replica(redis, Mints()) as one:
        for number in range(10):
            one.invalidations.invalidate(TokenKey(f"in-{number}"), None)
        await asyncio.sleep(0)
        await redis.start()

        assert await one.invalidations.send_unsent()
        assert len(redis.heard) == 3
