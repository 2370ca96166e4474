"""Asks Redis, and has an answer within a short time or none at all; nothing is ever raised.

The one module that imports `redis`. A slow, dead or confused Redis is told to `RedisHealth`, and
left alone until a probe succeeds. Answers are not trusted: what a token's entry holds is sealed, so
that even an answer to somebody else's question could not pass for one (as happened to users of
redis-py before 4.5.5).
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
LISTEN_SECONDS = 1.0  # how soon it is noticed while nothing is heard that Redis has gone
EPOCH_MS = 3_600_000  # longer than any mint takes
FAILED_MS = 1000
# By the first that fits.
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
    """How long the entry lives."""
    lease: bytes
    epoch: bytes


class RedisStore:
    """A Redis; its methods give `None` if it does not answer."""

    def __init__(
        self,
        address: StoreAddress,
        *,
        ca_file: Path | None,
        timeout: float,
        presence: RedisHealth,
        clock: Callable[[], float],
    ) -> None:
        """Connect when something is asked; `timeout` is for all of an answer."""
        self._client = _client(address, ca_file=ca_file, timeout=timeout)
        self._timeout = timeout
        self._presence = presence
        self._clock = clock
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def lookup(
        self, names: RedisKeys, *, owner: str = "", lease: float = 0.0
    ) -> StoredToken | None:
        """See what is there; with an `owner`, take the lease for so many seconds if it is free."""
        answer = await self._run(
            scripts.LOOK, names, owner, _milliseconds(lease), understand=_understand
        )
        return None if answer is None else answer[0]

    async def put(
        self, names: RedisKeys, entry: bytes, *, seconds: float, owner: str, epoch: bytes
    ) -> bool | None:
        """Keep an entry and free the lease; say whether no drop was in between."""
        lives = max(1, _milliseconds(seconds))
        answer = await self._run(scripts.PUT, names, owner, epoch, entry, lives)
        return None if answer is None else answer[0] == 1

    async def free(self, names: RedisKeys, *, owner: str) -> None:
        """Free the lease, if it is still the owner's."""
        await self._run(scripts.GIVE_UP, names, owner, 0)

    async def fail(self, names: RedisKeys, *, owner: str) -> None:
        """Turn the lease into word of a failure, if it is still the owner's."""
        await self._run(scripts.GIVE_UP, names, owner, FAILED_MS)

    async def invalidate(
        self,
        names: RedisKeys,
        *,
        fingerprint: str,
        epoch: str,
        channel: str,
        notice: bytes,
        is_probe: bool = False,
    ) -> bool:
        """Remove an entry, or only a certain one, and tell; say whether that was done."""
        words = (fingerprint, epoch, EPOCH_MS, channel, notice)
        return await self._run(scripts.DROP, names, *words, is_probe=is_probe) is not None

    async def probe(self, name: str) -> bool:
        """Try whether it is there and may be written to, whatever was seen before."""
        ask = partial(self._client.eval, scripts.PROBE, 1, name)
        return await self._ask(ask, is_probe=True) is not None

    @asynccontextmanager
    async def hearing(self, channel: str) -> AsyncIterator[Callable[[], Awaitable[object]] | None]:
        """Subscribe, and give what waits a moment for a message; `None` if that cannot be had."""
        subscription = self._client.pubsub(ignore_subscribe_messages=True)
        listen = partial(subscription.get_message, timeout=LISTEN_SECONDS)

        async def hear() -> object:
            answer = await self._ask(listen, more=LISTEN_SECONDS)
            message = answer[0] if answer is not None else None
            return message["data"] if isinstance(message, dict) else None

        async def subscribe() -> None:
            await subscription.subscribe(channel)
            await subscription.get_message(timeout=self._timeout)  # a refusal would be here

        try:
            is_there = await self._ask(subscribe, is_probe=True) is not None
            yield hear if is_there else None
        finally:
            await self._ask(subscription.aclose, is_probe=True)

    async def close(self) -> None:
        """Close all connections."""
        await self._ask(self._client.aclose, is_probe=True)

    async def _run(
        self,
        script: str,
        names: RedisKeys,
        *words: str | bytes | int,
        is_probe: bool = False,
        understand: Callable[[Any], Any] = int,
    ) -> tuple[Any] | None:
        async def ask() -> Any:
            keys = (names.entry, names.lease, names.epoch)
            return understand(await self._client.eval(script, len(keys), *keys, *words))

        # Waiting for one's turn is not Redis's fault, so the time limit begins after it.
        async with self._turns:
            return await self._ask(ask, is_probe=is_probe)

    async def _ask(
        self, ask: Callable[[], Any], *, is_probe: bool = False, more: float = 0.0
    ) -> tuple[Any] | None:
        """Have an answer, or `None` if there is none in time."""
        if not (self._presence.is_up or is_probe):
            return None
        try:
            async with asyncio.timeout(self._timeout + more):
                answer = (await ask(),)
        except Exception as error:  # noqa: BLE001  # whatever a confused Redis makes its client raise: no request may suffer from it
            give_way()
            reason = next((word for kind, word in REASONS if isinstance(error, kind)), "confused")
            self._presence.failed(reason, type(error).__name__, now=self._clock())
            return None
        give_way()
        return answer


def give_way() -> None:
    """Go on being cancelled, whatever the client has made of it.

    It was seen to raise something else when it could not close its connection, and to return.

    Raises:
        CancelledError: whoever asks is being cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _understand(answer: Any) -> StoredToken:
    entry, milliseconds, lease, epoch = answer
    return StoredToken(
        entry=entry, seconds=int(milliseconds) / 1000, lease=lease or b"", epoch=epoch or b""
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _client(address: StoreAddress, *, ca_file: Path | None, timeout: float) -> Redis:
    """Make a client that tries once and speaks the old protocol, which every Redis knows."""
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
