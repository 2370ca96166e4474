"""Replicas for tests: what shares tokens, in front of mints that a test lays out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from icr_proxy.credentials.access_token import AccessToken
from icr_proxy.credentials.signing_key import derive
from icr_proxy.errors import MintError
from icr_proxy.identifiers import TokenKey
from icr_proxy.net.addresses import read_store_url
from icr_proxy.redaction import Secret
from icr_proxy.shared_cache.entries import CacheScope
from icr_proxy.shared_cache.invalidation import Invalidations
from icr_proxy.shared_cache.membership import RedisHealth, Replicas
from icr_proxy.shared_cache.redis_store import RedisStore
from icr_proxy.shared_cache.single_flight import SingleFlight
from tests.support.fake_redis import TinyRedis

NOW = 1_700_000_000.0
PLACE = CacheScope(app="app", upstream="https://api.example")
KEY = derive(b"one", purpose=b"p")
PATIENT = 10.0  # seconds: a busy machine is no Redis that has gone
TIMEOUT = 0.25
ONE, TWO = TokenKey("in-1"), TokenKey("in-2")


@dataclass
class Mints:
    """An API that all replicas ask."""

    asked: list[TokenKey] = field(default_factory=list)
    errors: list[MintError] = field(default_factory=list)
    lifetime: float = 3600.0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    numbers: count[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, key: TokenKey) -> AccessToken:
        self.asked.append(key)
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        secret = Secret(f"crs_{key.installation}_{next(self.numbers)}")
        return AccessToken(
            secret=secret,
            minted_at=NOW,
            expires_at=NOW + self.lifetime,
            fingerprint=secret.fingerprint,
        )


@dataclass
class Heard:
    """A `membership.RedisHealthWatcher`, and what was counted."""

    told: list[tuple[object, ...]] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def lost(self, reason: str, error: str) -> None:
        self.told.append(("lost", reason, error))
        self.changed.set()

    def back(self, seconds: float) -> None:
        self.told.append(("back", seconds >= 0))
        self.changed.set()


@dataclass
class Replica:
    """One of them."""

    single_flight: SingleFlight
    invalidations: Invalidations
    store: RedisStore
    health: RedisHealth
    replicas: Replicas
    heard: Heard
    forgotten: list[tuple[TokenKey, str | None]] = field(default_factory=list)

    async def mint(self, key: TokenKey = ONE) -> str:
        return (await self.single_flight.mint(key)).secret.reveal()

    def listen(self) -> None:
        self.replicas.start(forget=lambda *what: self.forgotten.append(what))


async def until(holds: Callable[[], object]) -> None:
    """Wait for what happens elsewhere."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  # what is looked at is in other tasks and processes
            await asyncio.sleep(0.01)


@asynccontextmanager
async def replica(
    redis: TinyRedis,
    mints: Mints,
    *,
    keys: Sequence[bytes] = (KEY,),
    wait: float = 5.0,
    url: str | None = None,
    ca_file: Path | None = None,
    patience: float = PATIENT,
    probe_every: float = 60.0,
) -> AsyncIterator[Replica]:
    """Make one, whose clock stands still; what it waits for between two tries is short."""
    heard = Heard()
    health = RedisHealth(random=random.random, watcher=heard)
    store = RedisStore(
        read_store_url(url or redis.url),
        ca_file=ca_file,
        timeout=patience,
        health=health,
        clock=time.monotonic,
    )
    invalidations = Invalidations(
        store=store,
        scope=PLACE,
        keys=lambda: keys,
        entropy=random.randbytes,
        now=lambda: NOW,
        max_entries=3,
    )
    single_flight = SingleFlight(
        mint=mints,
        store=store,
        invalidations=invalidations,
        scope=PLACE,
        keys=lambda: keys,
        margin=300.0,
        wait=wait,
        count=heard.counted.append,
        now=lambda: NOW,
        clock=time.monotonic,
        random=random.random,
        entropy=random.randbytes,
        sleep=asyncio.sleep,
    )
    replicas = Replicas(
        store=store,
        health=health,
        invalidations=invalidations,
        single_flight=single_flight,
        scope=PLACE,
        clock=time.monotonic,
        sleep=lambda _seconds: asyncio.sleep(0.01),
        probe_every=probe_every,
    )
    made = Replica(
        single_flight=single_flight,
        invalidations=invalidations,
        store=store,
        health=health,
        replicas=replicas,
        heard=heard,
    )
    try:
        yield made
    finally:
        await replicas.stop()
