"""Redis client that answers within a short time or not at all, and never raises.

The one module that imports `redis`. It reports a slow, dead or confused Redis to `RedisHealth` and
sends nothing more until a probe succeeds. Replies are not trusted: the entry of a token is sealed,
so that even the reply to another request could not pass for it (redis-py before 4.5.5 mixed them).
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as UnreachableError
from redis.exceptions import TimeoutError as LateError

from icr_proxy.shared_cache import redis_scripts as scripts
from icr_proxy.upstream.trust_store import read_authorities

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from icr_proxy.net.addresses import StoreAddress
    from icr_proxy.shared_cache.entries import RedisKeys
    from icr_proxy.shared_cache.membership import RedisHealth

CONNECTIONS = 8  # more at once make Redis no faster
LISTEN_SECONDS = 1.0  # without messages, the loss of Redis is noticed this soon
EPOCH_MS = 3_600_000  # longer than any mint takes
FAILED_MS = 1000
# The first row that fits counts.
REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (AuthenticationError, "credentials"),
    (NoPermissionError, "permissions"),
    (ResponseError, "refused"),
    (LateError, "timeout"),
    (TimeoutError, "timeout"),
    (UnreachableError, "unreachable"),
    (OSError, "unreachable"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredToken:
    """What Redis holds for one token."""

    entry: bytes | None
    seconds: float
    """Time to live of the entry."""
    lease: bytes
    epoch: bytes


class RedisStore:
    """Client of one Redis; each method returns `None` if Redis does not answer."""

    def __init__(
        self,
        address: StoreAddress,
        *,
        ca_file: Path | None,
        timeout: float,
        health: RedisHealth,
        clock: Callable[[], float],
    ) -> None:
        """Connect with the first command; `timeout` limits a whole reply."""
        self._client = _client(address, ca_file=ca_file, timeout=timeout)
        self._timeout = timeout
        self._health = health
        self._clock = clock
        self._connections = asyncio.Semaphore(CONNECTIONS)

    async def lookup(
        self, redis_keys: RedisKeys, *, owner: str = "", lease: float = 0.0
    ) -> StoredToken | None:
        """Return the entry; with an `owner`, take the lease for so many seconds if it is free."""
        answer = await self._eval(
            scripts.LOOK, redis_keys, owner, _milliseconds(lease), parse=_parse_lookup
        )
        return None if answer is None else answer[0]

    async def put(
        self, redis_keys: RedisKeys, entry: bytes, *, seconds: float, owner: str, epoch: bytes
    ) -> bool | None:
        """Store an entry and free the lease; return whether no invalidation came in between."""
        lives = max(1, _milliseconds(seconds))
        answer = await self._eval(scripts.PUT, redis_keys, owner, epoch, entry, lives)
        return None if answer is None else answer[0] == 1

    async def free(self, redis_keys: RedisKeys, *, owner: str) -> None:
        """Free the lease, if the owner still has it."""
        await self._eval(scripts.GIVE_UP, redis_keys, owner, 0)

    async def fail(self, redis_keys: RedisKeys, *, owner: str) -> None:
        """Replace the lease by the mark of a failed mint, if the owner still has it."""
        await self._eval(scripts.GIVE_UP, redis_keys, owner, FAILED_MS)

    async def invalidate(
        self,
        redis_keys: RedisKeys,
        *,
        fingerprint: str,
        epoch: str,
        channel: str,
        notice: bytes,
        is_probe: bool = False,
    ) -> bool:
        """Remove an entry, or only a certain one, and publish; return whether that succeeded."""
        words = (fingerprint, epoch, EPOCH_MS, channel, notice)
        return await self._eval(scripts.DROP, redis_keys, *words, is_probe=is_probe) is not None

    async def probe(self, name: str) -> bool:
        """Test whether Redis answers and takes writes, whatever its state was."""
        ask = partial(self._client.eval, scripts.PROBE, 1, name)
        return await self._call(ask, is_probe=True) is not None

    @asynccontextmanager
    async def subscription(
        self, channel: str
    ) -> AsyncIterator[Callable[[], Awaitable[object]] | None]:
        """Subscribe; yield a function that waits for a message, or `None` without Redis."""
        subscription = self._client.pubsub(ignore_subscribe_messages=True)
        listen = partial(subscription.get_message, timeout=LISTEN_SECONDS)

        async def receive() -> object:
            answer = await self._call(listen, more=LISTEN_SECONDS)
            message = answer[0] if answer is not None else None
            return message["data"] if isinstance(message, dict) else None

        async def subscribe() -> None:
            await subscription.subscribe(channel)
            await subscription.get_message(timeout=self._timeout)  # a refusal would be here

        try:
            is_there = await self._call(subscribe, is_probe=True) is not None
            yield receive if is_there else None
        finally:
            await self._call(subscription.aclose, is_probe=True)

    async def close(self) -> None:
        """Close all connections."""
        await self._call(self._client.aclose, is_probe=True)

    async def _eval(
        self,
        script: str,
        redis_keys: RedisKeys,
        *words: str | bytes | int,
        is_probe: bool = False,
        parse: Callable[[Any], Any] = int,
    ) -> tuple[Any] | None:
        async def ask() -> Any:
            keys = (redis_keys.entry, redis_keys.lease, redis_keys.epoch)
            return parse(await self._client.eval(script, len(keys), *keys, *words))

        # Waiting for a connection is not the fault of Redis, so the time limit begins after it.
        async with self._connections:
            return await self._call(ask, is_probe=is_probe)

    async def _call(
        self, ask: Callable[[], Any], *, is_probe: bool = False, more: float = 0.0
    ) -> tuple[Any] | None:
        """Return the reply in a tuple, or `None` if there is none in time."""
        if not (self._health.is_up or is_probe):
            return None
        try:
            async with asyncio.timeout(self._timeout + more):
                answer = (await ask(),)
        except Exception as error:  # noqa: BLE001  # whatever a confused Redis makes its client raise: no request may suffer from it
            raise_if_cancelled()
            reason = next((word for kind, word in REASONS if isinstance(error, kind)), "confused")
            self._health.failed(reason, type(error).__name__, now=self._clock())
            return None
        raise_if_cancelled()
        return answer


def raise_if_cancelled() -> None:
    """Restore a cancellation that the client swallowed.

    The client was seen to return, or to raise another error when a connection did not close.

    Raises:
        CancelledError: the current task is being cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _parse_lookup(answer: Any) -> StoredToken:
    entry, milliseconds, lease, epoch = answer
    return StoredToken(
        entry=entry, seconds=int(milliseconds) / 1000, lease=lease or b"", epoch=epoch or b""
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _client(address: StoreAddress, *, ca_file: Path | None, timeout: float) -> Redis:
    """Make a client that tries once and speaks RESP2, which every Redis knows."""
    encryption: dict[str, Any] = {}
    if address.is_encrypted:
        encryption = {
            "ssl": True,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_exclude_verify_flags": [ssl.VerifyFlags.VERIFY_X509_STRICT],  # as `trust_store`
        }
    if address.is_encrypted and ca_file is not None:
        encryption["ssl_ca_data"] = read_authorities(ca_file, key="tokens.shared_ca_file")
    return Redis(
        host=address.host,
        port=address.port,
        unix_socket_path=address.path,
        db=address.database,
        username=address.user,
        password=address.password.reveal() if address.password is not None else None,
        protocol=2,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        max_connections=2 * CONNECTIONS,
        **encryption,
    )
