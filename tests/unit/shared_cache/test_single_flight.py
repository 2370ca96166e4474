import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from icr_proxy.credentials.signing_key import derive
from icr_proxy.errors import InstallationRefusedError, MintError
from icr_proxy.identifiers import TokenKey
from tests.support.fake_redis import TinyRedis, tiny_redis
from tests.support.replicas import KEY, ONE, PLACE, TWO, Mints, replica, until

ENTRY, LEASE, EPOCH = (
    name.encode()
    for name in (
        PLACE.redis_keys(ONE).entry,
        PLACE.redis_keys(ONE).lease,
        PLACE.redis_keys(ONE).epoch,
    )
)


@pytest.fixture
async def redis() -> AsyncIterator[TinyRedis]:
    async with tiny_redis() as running:
        yield running


@pytest.fixture
def mints() -> Mints:
    return Mints()


async def until_asked(mints: Mints, number: int = 1) -> None:
    await until(lambda: len(mints.asked) >= number)


async def test_what_one_replica_had_made_another_finds(redis: TinyRedis, mints: Mints) -> None:
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        found = [await one.mint(), await other.mint(), await other.mint()]

        assert found == ["crs_in-1_1"] * 3
        assert (one.heard.counted, other.heard.counted) == (["minted"], ["found", "found"])
        assert (await other.single_flight.mint(ONE)).is_shared
        assert redis.names("lease") == []


async def test_replicas_that_need_a_token_at_once_have_one_made(
    redis: TinyRedis, mints: Mints
) -> None:
    mints.gate.clear()
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        tasks = [asyncio.ensure_future(each.mint()) for each in (one, other)]
        await until_asked(mints)
        await asyncio.sleep(0.1)
        mints.gate.set()
        found = await asyncio.gather(*tasks)

        assert found == ["crs_in-1_1"] * 2
        assert Counter(one.heard.counted + other.heard.counted) == {"minted": 1, "found": 1}


async def test_installations_and_the_app_never_get_each_others_token(
    redis: TinyRedis, mints: Mints
) -> None:
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        keys = [ONE, TWO, TokenKey(None)]
        made = [await one.mint(key) for key in keys]
        found = [await other.mint(key) for key in keys]

    assert found == made
    assert mints.asked == keys


async def test_an_entry_moved_to_another_name_is_refused(redis: TinyRedis, mints: Mints) -> None:
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        await one.mint(ONE)
        redis.put(PLACE.redis_keys(TWO).entry.encode(), redis.get(ENTRY) or b"")
        found = await other.mint(TWO)

        assert found == "crs_in-2_2"
        assert set(other.heard.counted) == {"unreadable", "minted"}


@pytest.mark.parametrize("value", [b"", b"garbage", b"1" * 500], ids=repr)
async def test_garbage_is_replaced(redis: TinyRedis, mints: Mints, value: bytes) -> None:
    redis.put(ENTRY, value)
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        assert await one.mint() == await other.mint() == "crs_in-1_1"


async def test_no_value_holds_a_token_in_the_clear(redis: TinyRedis, mints: Mints) -> None:
    async with replica(redis, mints) as one:
        await one.mint()
        one.invalidations.invalidate(ONE, "0123456789ab")
        await one.invalidations.wait_until_sent(ONE)

    kept = [value for value, _ in redis.values.values()] + redis.heard
    assert len(kept) == 2
    assert [value for value in kept if b"crs_" in value] == []


# -- keys -----------------------------------------------------------------------------------------

NEW = derive(b"new", purpose=b"p")


async def test_with_another_key_each_has_its_own_made(redis: TinyRedis, mints: Mints) -> None:
    async with replica(redis, mints) as one, replica(redis, mints, keys=[NEW]) as other:
        found = [await one.mint(), await other.mint()]

    assert found == ["crs_in-1_1", "crs_in-1_2"]


async def test_while_keys_change_either_is_read(redis: TinyRedis, mints: Mints) -> None:
    async with (
        replica(redis, mints, keys=[KEY]) as before,
        replica(redis, mints, keys=[NEW, KEY]) as between,
        replica(redis, mints, keys=[NEW]) as after,
    ):
        await before.mint()
        assert await between.mint() == "crs_in-1_1"
        await after.mint()
        assert await between.mint() == "crs_in-1_2"


# -- renewal and leases ---------------------------------------------------------------------------


async def test_a_due_token_is_renewed_by_one_and_found_by_the_others(
    redis: TinyRedis, mints: Mints
) -> None:
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        await one.mint()
        kept, _ = redis.values[ENTRY]
        redis.put(ENTRY, kept, milliseconds=299_000)

        found = [await one.mint(), await other.mint()]

    assert found == ["crs_in-1_2"] * 2


async def test_when_the_holder_of_a_lease_has_died_one_replica_takes_over(
    redis: TinyRedis, mints: Mints
) -> None:
    redis.put(LEASE, b"the dead", milliseconds=300)
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        found = await asyncio.gather(one.mint(), other.mint())

    assert set(found) == {"crs_in-1_1"}


async def test_nobody_waits_for_ever(redis: TinyRedis, mints: Mints) -> None:
    """What it has made by itself is good for the others all the same."""
    redis.put(LEASE, b"the slow", milliseconds=60_000)
    async with replica(redis, mints, wait=0.1) as one, replica(redis, mints) as other:
        found = [await one.mint(), await other.mint()]

        assert list(found) == ["crs_in-1_1"] * 2
        assert one.heard.counted == ["alone"]
        assert redis.get(LEASE) == b"the slow"


@pytest.mark.parametrize("lease", [None, b"another"], ids=["free", "held"])
async def test_a_token_that_comes_while_one_waits_is_used_and_no_lease_kept(
    redis: TinyRedis, mints: Mints, lease: bytes | None
) -> None:
    async with replica(redis, mints) as one:
        await one.mint()
        kept = redis.values.pop(ENTRY)
        redis.put(LEASE, b"another", milliseconds=60_000)
        redis.asked.clear()
        waiting = asyncio.ensure_future(one.mint())
        await until(lambda: redis.asked.count("EVAL") >= 2)
        redis.values[ENTRY] = kept
        if lease is None:
            del redis.values[LEASE]

        assert await waiting == "crs_in-1_1"
        assert redis.get(LEASE) == lease


async def test_a_failed_mint_is_told_and_every_replica_tries_by_itself(
    redis: TinyRedis, mints: Mints
) -> None:
    mints.gate.clear()
    mints.errors = [InstallationRefusedError("x"), InstallationRefusedError("x")]
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        first = asyncio.ensure_future(one.mint())
        await until_asked(mints)
        second = asyncio.ensure_future(other.mint())
        await asyncio.sleep(0.1)
        mints.gate.set()
        found = await asyncio.gather(first, second, return_exceptions=True)

        assert {type(each) for each in found} == {InstallationRefusedError}
        assert redis.get(LEASE) == b"failed"
        assert other.heard.counted == ["alone"]


async def test_a_replica_that_stops_gives_back_its_lease(redis: TinyRedis, mints: Mints) -> None:
    mints.gate.clear()
    async with replica(redis, mints) as one:
        task = asyncio.ensure_future(one.mint())
        await until_asked(mints)
        task.cancel()
        await asyncio.wait({task})

    assert task.cancelled()
    assert redis.names("lease") == []


async def test_a_token_made_before_a_drop_is_not_kept(redis: TinyRedis, mints: Mints) -> None:
    mints.gate.clear()
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        task = asyncio.ensure_future(one.mint())
        await until_asked(mints)
        other.invalidations.invalidate(ONE, None)
        await other.invalidations.wait_until_sent(ONE)
        mints.gate.set()

        assert await task == "crs_in-1_2"
        assert await other.mint() == "crs_in-1_2"


async def test_a_token_that_was_refused_here_is_never_picked_up_again(
    redis: TinyRedis, mints: Mints
) -> None:
    async with replica(redis, mints) as one:
        token = await one.single_flight.mint(ONE)
        kept, _ = redis.values[ENTRY]
        one.invalidations.invalidate(ONE, token.fingerprint)
        await one.invalidations.wait_until_sent(ONE)
        redis.put(ENTRY, kept)

        assert await one.mint() == "crs_in-1_2"


async def test_after_a_refusal_no_token_is_picked_up_that_may_have_been_revoked_with_it(
    redis: TinyRedis, mints: Mints
) -> None:
    """Replicas that Redis had left alone have a token each, and all may be revoked at once."""
    async with replica(redis, mints) as one, replica(redis, mints) as other:
        await one.mint()
        kept, _ = redis.values[ENTRY]
        redis.put(ENTRY, kept, milliseconds=3_590_000)
        other.invalidations.invalidate(ONE, "0123456789ab")

        assert await other.mint() == "crs_in-1_2"
        assert await one.mint() == "crs_in-1_2"


# -- without Redis --------------------------------------------------------------------------------


async def test_redis_that_dies_while_a_token_is_made_costs_nothing(
    redis: TinyRedis, mints: Mints
) -> None:
    mints.gate.clear()
    async with replica(redis, mints) as one:
        task = asyncio.ensure_future(one.mint())
        await until_asked(mints)
        await redis.kill()
        mints.gate.set()

        assert await task == "crs_in-1_1"
        assert await one.mint() == "crs_in-1_2"
        assert one.heard.told == [("lost", "unreachable", "ConnectionError")]


async def test_redis_that_dies_while_one_waits_ends_the_wait(
    redis: TinyRedis, mints: Mints
) -> None:
    redis.put(LEASE, b"another", milliseconds=60_000)
    async with replica(redis, mints) as one:
        task = asyncio.ensure_future(one.mint())
        await until(lambda: redis.asked.count("EVAL") >= 2)
        await redis.kill()

        assert await task == "crs_in-1_1"
        assert one.heard.counted == ["alone"]


@pytest.mark.parametrize("answers", range(6))
async def test_redis_that_dies_at_any_point_costs_nothing(
    redis: TinyRedis, mints: Mints, answers: int
) -> None:
    """Between two looks, between look and lease, before and after a drop in the midst of a mint."""
    mints.gate.clear()
    async with replica(redis, mints) as one:
        redis.answers_left = answers
        task = asyncio.ensure_future(one.mint())
        await until_asked(mints)
        redis.put(EPOCH, b"dropped meanwhile")
        mints.gate.set()

        assert await task in ("crs_in-1_1", "crs_in-1_2")
        assert len(one.heard.told) == (1 if answers < 5 else 0)


async def test_a_failed_mint_without_redis_is_the_same_failure(
    redis: TinyRedis, mints: Mints
) -> None:
    await redis.kill()
    mints.errors = [MintError("the API failed")]
    async with replica(redis, mints) as one:
        with pytest.raises(MintError, match="the API failed"):
            await one.mint()
