"""Connections to the API: reused last in, first out, bounded in number, never shared in time."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from proxy.connection import Connection
from proxy.errors import (
    StartError,
    UpstreamBusyError,
    UpstreamTimeoutError,
    UpstreamTlsError,
    UpstreamUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proxy.upstream import UpstreamRequest, UpstreamResponse
    from proxy.upstreamconfig import TimeoutsConfig

# Node's HTTP server, on which NestJS runs, closes idle connections after 5 s unless told
# otherwise; what stands in front of the real API is not documented.
IDLE_SECONDS = 4.0
# A write is never sent again when the API closes an idle connection under us, so it goes out on a
# connection that answered a moment ago, or on a new one.
PROVEN_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the API is, parsed once at start."""

    host: str
    port: int
    tls: ssl.SSLContext | None


def parse_address(base_url: str, *, ca_file: Path | None) -> Address:
    """Take apart a base URL that `config` has checked; certificates are always verified.

    Raises:
        StartError: `ca_file` cannot be read or holds no certificate.
    """
    url = urlsplit(base_url)
    tls = None
    if url.scheme == "https":
        try:
            tls = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as exc:
            raise StartError(
                f"upstream.ca_file: {ca_file} is not a file of PEM certificates"
            ) from exc
        tls.hostname_checks_common_name = False  # nor has it counted since RFC 9525
    return Address(host=url.hostname or "", port=url.port or (443 if tls else 80), tls=tls)


class Pool:
    """Connections to one address.

    A connection whose answer was not read to its end, or on which anything arrived while it lay
    idle, is never handed out again: those bytes would be another organization's answer.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeouts: TimeoutsConfig,
        connections: int,
        now: Callable[[], float],
        connected: Callable[[str], None],
    ) -> None:
        self._address = address
        self._timeouts = timeouts
        self._now = now
        self._connected = connected
        self._limit = connections
        self._taken = 0
        self._idle: deque[Connection] = deque()
        self._slots = asyncio.Semaphore(connections)
        self._active: set[Connection] = set()
        self._reaper: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    @property
    def active(self) -> int:
        """Connections in the middle of one."""
        return len(self._active)

    @property
    def free(self) -> int:
        """How many more requests may be sent now."""
        return self._limit - self._taken

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send once on a pooled or new connection and wait for the head of the answer."""
        connection = await self._acquire(request)
        try:
            return await connection.send(request)
        except BaseException:
            connection.abort()
            raise

    async def _acquire(self, request: UpstreamRequest) -> Connection:
        if self._slots.locked():
            try:
                async with asyncio.timeout(self._timeouts.connect):
                    await self._slots.acquire()
            except TimeoutError:
                raise UpstreamBusyError("all connections to the API are in use") from None
        else:
            await self._slots.acquire()
        self._taken += 1
        try:
            connection = None if request.fresh else self._pop(is_write=request.is_write)
            if connection is None:
                self._make_room()
                connection = await self._connect()
        except BaseException:
            self._free()
            raise
        self._active.add(connection)
        return connection

    def _free(self) -> None:
        self._taken -= 1
        self._slots.release()

    def _make_room(self) -> None:
        """Close what has been idle the longest: all together may not be more than the limit."""
        while self._idle and self._taken + len(self._idle) > self._limit:
            self._idle.popleft().abort()

    def _pop(self, *, is_write: bool) -> Connection | None:
        now = self._now()
        while self._idle:
            connection = self._idle.pop()
            age = now - connection.idle_since
            if age >= IDLE_SECONDS or not connection.is_quiet:
                connection.abort()
            elif is_write and age >= PROVEN_SECONDS:
                self._idle.append(connection)  # good enough for a read
                return None
            else:
                connection.reused = True
                return connection
        return None

    async def _connect(self) -> Connection:
        address = self._address
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeouts.connect):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, timeouts=self._timeouts, released=self._release),
                    address.host,
                    address.port,
                    ssl=address.tls,
                    server_hostname=address.host if address.tls else None,
                )
        except TimeoutError:
            self._connected("timeout")
            raise UpstreamTimeoutError("connecting to the API took too long") from None
        except (ssl.SSLError, ssl.CertificateError) as exc:
            self._connected("tls")
            raise UpstreamTlsError("the API's certificate or TLS handshake failed") from exc
        except OSError as exc:
            self._connected("unreachable")
            raise UpstreamUnreachableError("the API cannot be reached") from exc
        self._connected("ok")
        return connection

    def _release(self, connection: Connection) -> None:
        """Take back a connection at the end of an exchange; called once per acquired one."""
        if connection not in self._active:
            return
        self._active.discard(connection)
        self._free()
        if connection.is_open:
            connection.idle_since = self._now()
            self._idle.append(connection)
            if self._reaper is None:
                self._schedule_reaper()

    def _schedule_reaper(self) -> None:
        loop = asyncio.get_running_loop()
        self._reaper = loop.call_later(IDLE_SECONDS, self._reap)

    def _reap(self) -> None:
        self._reaper = None
        limit = self._now() - IDLE_SECONDS
        while self._idle and (self._idle[0].idle_since <= limit or not self._idle[0].is_open):
            self._idle.popleft().abort()
        if self._idle:
            self._schedule_reaper()

    def close(self) -> None:
        """Break every connection; what is in the middle of an exchange fails."""
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        for connection in (*self._idle, *self._active):
            connection.abort()
        self._idle.clear()
