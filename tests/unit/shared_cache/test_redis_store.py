import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from functools import cache, partial
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.certificate_authority import Issued, authority, issue, server_certificate
from tests.support.fake_redis import TinyRedis, tiny_redis
from tests.support.replicas import ONE, PLACE, TIMEOUT, Mints, replica

NAMES = PLACE.redis_keys(ONE)


@pytest.fixture
async def redis() -> AsyncIterator[TinyRedis]:
    async with tiny_redis() as running:
        yield running


@pytest.mark.parametrize(
    ("mood", "reason"),
    [("hangs", "timeout"), ("babbles", "confused"), ("full", "refused"), ("rude", "confused")],
)
async def test_redis_that_is_unwell_gives_no_answer_and_raises_nothing(
    redis: TinyRedis, mood: str, reason: str
) -> None:
    redis.mood = mood
    async with replica(redis, Mints(), patience=TIMEOUT) as one:
        found = await one.store.lookup(NAMES)

        assert found is None
        assert [(what, why) for what, why, _ in one.heard.told] == [("lost", reason)] or (
            mood == "babbles" and one.heard.told[0][0] == "lost"
        )


async def test_redis_that_is_not_there_gives_no_answer(redis: TinyRedis) -> None:
    await redis.kill()
    async with replica(redis, Mints()) as one:
        assert await one.store.lookup(NAMES) is None
        assert await one.store.put(NAMES, b"x", seconds=1, owner="me", epoch=b"") is None
        assert one.heard.told == [("lost", "unreachable", "ConnectionError")]


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:{port}", "redis://:wrong@127.0.0.1:{port}"], ids=["none", "wrong"]
)
async def test_a_wrong_password_gives_no_answer_and_is_not_told(url: str) -> None:
    async with (
        tiny_redis(password="hush") as redis,
        replica(redis, Mints(), url=url.format(port=redis.port)) as one,
    ):
        assert await one.store.lookup(NAMES) is None
        assert one.heard.told == [("lost", "credentials", "AuthenticationError")]


async def test_the_right_password_opens() -> None:
    async with (
        tiny_redis(password="hush") as redis,
        replica(redis, Mints(), url=f"redis://:hush@127.0.0.1:{redis.port}/3") as one,
    ):
        assert await one.store.lookup(NAMES) is not None


@cache
def plain() -> Issued:
    """Give an authority that the strict check of Python 3.13 would refuse."""
    return issue("plain", is_plain=True)


def elsewhere() -> Issued:
    return issue("redis.example", by=authority(), names=(x509.DNSName("redis.example"),))


@pytest.mark.parametrize(
    ("certificate", "ca", "believed"),
    [
        pytest.param(server_certificate, authority, True, id="right"),
        pytest.param(lambda: server_certificate(by=plain()), plain, True, id="a plain authority"),
        pytest.param(server_certificate, partial(issue, "another"), False, id="authority"),
        pytest.param(server_certificate, None, False, id="none of the system's authorities"),
        pytest.param(elsewhere, authority, False, id="name"),
    ],
)
async def test_a_redis_is_believed_by_its_certificate(
    tmp_path: Path,
    certificate: Callable[[], Issued],
    ca: Callable[[], Issued] | None,
    *,
    believed: bool,
) -> None:
    ca_file = None
    if ca is not None:
        ca_file = tmp_path / "ca.pem"
        ca_file.write_bytes(ca().cert_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate().write(tmp_path))
    async with (
        tiny_redis(tls=context) as redis,
        replica(redis, Mints(), url=f"rediss://localhost:{redis.port}", ca_file=ca_file) as one,
    ):
        found = await one.store.lookup(NAMES)

        assert (found is not None) is believed


async def test_redis_that_is_slow_but_answers_in_time_is_used(redis: TinyRedis) -> None:
    redis.mood = "slow"
    async with replica(redis, Mints()) as one:
        assert await one.store.lookup(NAMES) is not None


async def test_one_that_has_failed_is_left_alone(redis: TinyRedis) -> None:
    redis.mood = "hangs"
    async with replica(redis, Mints(), patience=TIMEOUT) as one:
        await one.store.lookup(NAMES)
        redis.mood, asked = "well", len(redis.asked)

        assert [await one.store.lookup(NAMES) for _ in range(3)] == [None] * 3
        assert len(redis.asked) == asked


async def test_many_who_ask_one_that_hangs_wait_no_longer_than_one(redis: TinyRedis) -> None:
    """Only as many as there are connections wait; the others hear that it has gone."""
    redis.mood = "hangs"
    async with replica(redis, Mints(), patience=TIMEOUT) as one:
        began = time.monotonic()
        await asyncio.gather(*(one.store.lookup(NAMES) for _ in range(500)))

        assert time.monotonic() - began < 8 * TIMEOUT
        assert len(one.heard.told) == 1


async def test_an_answer_that_nobody_waits_for_is_nobody_elses(redis: TinyRedis) -> None:
    """The mistake by which users of another service once saw each other's data."""
    redis.mood = "slow"
    async with replica(redis, Mints()) as one:
        first = asyncio.ensure_future(one.store.put(NAMES, b"x", seconds=9, owner="me", epoch=b""))
        await asyncio.sleep(0.03)
        first.cancel()
        await asyncio.wait({first})

        found = await one.store.lookup(NAMES)

    assert found is not None
    assert found.lease == b""
