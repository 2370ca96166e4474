import asyncio
from collections.abc import AsyncIterator

import pytest

from icr_proxy.shared_cache.membership import RedisHealth
from tests.support.fake_redis import TinyRedis, tiny_redis
from tests.support.replicas import ONE, TIMEOUT, Mints, replica, until


@pytest.fixture
async def redis() -> AsyncIterator[TinyRedis]:
    async with tiny_redis() as running:
        yield running


async def test_what_one_drops_the_others_forget(redis: TinyRedis) -> None:
    async with replica(redis, Mints()) as one, replica(redis, Mints()) as other:
        other.listen()
        await until(lambda: "SUBSCRIBE" in redis.asked)
        one.invalidations.invalidate(ONE, None)
        one.invalidations.invalidate(ONE, "0123456789ab")
        await until(lambda: len(other.forgotten) == 2)

        assert other.forgotten == [(ONE, None), (ONE, "0123456789ab")]
        assert one.forgotten == []


async def test_it_is_noticed_by_itself_that_redis_goes_and_comes_back(redis: TinyRedis) -> None:
    async with replica(redis, Mints()) as one:
        one.listen()
        await until(lambda: "SUBSCRIBE" in redis.asked)
        await redis.kill()
        await until(lambda: one.replicas.state == "lost")
        await redis.start()
        await until(lambda: one.replicas.state == "up")

        assert [what for what, *_ in one.heard.told] == ["lost", "back"]
        assert await one.mint() == "crs_in-1_1"
        assert redis.names("token") != []


async def test_one_that_is_not_there_at_start_is_told_once_however_long_it_takes(
    redis: TinyRedis,
) -> None:
    await redis.kill()
    async with replica(redis, Mints()) as one:
        one.listen()
        await until(lambda: one.heard.told)
        await asyncio.sleep(0.2)

        assert len(one.heard.told) == 1


@pytest.mark.parametrize(
    ("mood", "reason"), [("full", "refused"), ("forbids", "permissions"), ("hangs", "timeout")]
)
async def test_one_that_takes_nothing_is_not_back(redis: TinyRedis, mood: str, reason: str) -> None:
    redis.mood = mood
    async with replica(redis, Mints(), patience=TIMEOUT) as one:
        one.listen()
        await until(lambda: one.heard.told)
        await asyncio.sleep(0.2)

        assert [(what, why) for what, why, _ in one.heard.told] == [("lost", reason)]


async def test_what_was_dropped_while_redis_was_away_is_gone_before_it_is_used(
    redis: TinyRedis,
) -> None:
    async with replica(redis, Mints()) as one:
        await one.mint()
        await redis.kill()
        one.invalidations.invalidate(ONE, None)
        await one.invalidations.wait_until_sent(ONE)
        one.listen()
        await redis.start()
        await until(lambda: one.replicas.state == "up")

        assert redis.names("token") == []


async def test_one_that_takes_no_more_is_noticed_though_nothing_is_asked(redis: TinyRedis) -> None:
    async with replica(redis, Mints(), probe_every=0.0) as one:
        one.listen()
        await until(lambda: redis.asked.count("EVAL") >= 3)
        redis.mood = "full"
        await until(lambda: one.replicas.state == "lost")

        assert [(what, why) for what, why, _ in one.heard.told] == [("lost", "refused")]


async def test_one_that_was_never_asked_to_listen_stops_all_the_same(redis: TinyRedis) -> None:
    async with replica(redis, Mints()) as one:
        await one.replicas.stop()

    assert redis.asked == []


@pytest.mark.parametrize("mood", ["well", "forbids", "babbles"])
async def test_it_stops_at_whatever_moment_it_is_told_to(redis: TinyRedis, mood: str) -> None:
    """The client was seen to swallow that it was cancelled, and the program never ended."""
    redis.mood = mood
    for number in range(40):
        async with replica(redis, Mints(), patience=TIMEOUT) as one:
            one.listen()
            await asyncio.sleep(number / 2000)
            async with asyncio.timeout(20):
                await one.replicas.stop()


class Heard:
    """A `RedisHealthWatcher`."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def lost(self, reason: str, error: str) -> None:
        self.told.append(("lost", reason, error))

    def back(self, seconds: float) -> None:
        self.told.append(("back", seconds))


def test_it_is_told_once_when_it_goes_and_once_when_it_comes_back() -> None:
    heard = Heard()
    health = RedisHealth(random=lambda: 0.0, watcher=heard)

    health.answered(now=99.0)
    for at in (100.0, 101.0, 102.0):
        health.failed("timeout", "TimeoutError", now=at)
    states = [health.is_up]
    for at in (105.0, 106.0):
        health.answered(now=at)

    assert [*states, health.is_up] == [False, True]
    assert heard.told == [("lost", "timeout", "TimeoutError"), ("back", 5.0)]


def test_it_is_left_alone_for_longer_each_time_it_is_tried_in_vain() -> None:
    health = RedisHealth(random=lambda: 0.0, watcher=Heard())

    assert [health.pause() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_replicas_do_not_try_together() -> None:
    late = RedisHealth(random=lambda: 0.0, watcher=Heard())
    early = RedisHealth(random=lambda: 0.999, watcher=Heard())

    assert late.pause() == 1.0
    assert 0.5 < early.pause() < 0.51


def test_what_fails_again_soon_has_never_been_back() -> None:
    health = RedisHealth(random=lambda: 0.0, watcher=Heard())
    health.failed("timeout", "TimeoutError", now=100.0)
    first = health.pause()
    health.answered(now=101.0)
    health.failed("timeout", "TimeoutError", now=120.0)
    second = health.pause()
    health.answered(now=122.0)
    health.failed("timeout", "TimeoutError", now=182.0)

    assert (first, second, health.pause()) == (1.0, 2.0, 1.0)
