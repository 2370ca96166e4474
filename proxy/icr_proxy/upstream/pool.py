"""Connections to the API: reused last in, first out, bounded in number, never shared in time.

`asyncio.Semaphore` does the same, but is awaited even while there is room, twice for each request,
and whoever waits needs a time limit of their own. Here all have the same patience, so whoever
waits the longest is the first to lose it, and one timer does for all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from icr_proxy.errors import (
    UpstreamBusyError,
    UpstreamCertificateError,
    UpstreamError,
    UpstreamExhaustedError,
    UpstreamLoopError,
    UpstreamTimeoutError,
    UpstreamTlsError,
    UpstreamUnreachableError,
)
from icr_proxy.upstream.connection import RECEIVED_MOST, Connection
from icr_proxy.upstream.dialer import dial

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.config.models import TimeoutsConfig
    from icr_proxy.upstream.circuit_breaker import GuardedUpstream
    from icr_proxy.upstream.dialer import UpstreamAddress
    from icr_proxy.upstream.interface import UpstreamRequest, UpstreamResponse

# uvloop rounds to the millisecond: without this, a timer that comes a little early comes twice.
SLACK_SECONDS = 0.001


class TimedSemaphore:
    """A fair semaphore whose waiters share one time-out."""

    def __init__(
        self, most: int, *, patience: float, late: Callable[[], Exception] = TimeoutError
    ) -> None:
        """Let nobody wait for more than `patience` seconds; then they get what `late` makes."""
        self._patience = patience
        self._late = late
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = 0
        """How many wait for a place."""
        self.free = most
        """How many may be taken now."""

    def acquire(self) -> bool:
        """Acquire a place without waiting, if one is free."""
        if not self.free:
            return False
        self.free -= 1
        return True

    def queue(self) -> asyncio.Future[None]:
        """Give what to await for a place; whoever stops waiting calls `cancel`.

        It raises what `late` makes when it took longer than there is patience.
        """
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        due = loop.time() + self._patience
        self._waiting.append((due, turn))
        if self._timer is None:
            self._timer = loop.call_at(due, self._lose_patience, loop)
        self.waiting += 1
        return turn

    def cancel(self, turn: asyncio.Future[None]) -> None:
        """Cancel waiting, whatever the reason; a place that comes too late is given on."""
        if turn.cancelled() or turn.cancel():
            self.waiting -= 1
        elif turn.exception() is None:
            self.release()
        self._pass_over()

    def release(self) -> None:
        """Release a place: it goes to whoever waits the longest."""
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                self.waiting -= 1
                turn.set_result(None)
                return
        self.free += 1
        if self._timer is not None:
            self._pass_over()

    def _pass_over(self) -> None:
        """Forget who has left, as far as nobody waits in front of them, and the timer after all."""
        waiting = self._waiting
        while waiting and waiting[0][1].done():
            waiting.popleft()
        if not waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lose_patience(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now, waiting = loop.time() + SLACK_SECONDS, self._waiting
        while waiting and (waiting[0][0] <= now or waiting[0][1].done()):
            _, turn = waiting.popleft()
            if not turn.done():
                self.waiting -= 1
                turn.set_exception(self._late())
        if waiting:
            self._timer = loop.call_at(waiting[0][0], self._lose_patience, loop)


# Node's HTTP server, on which NestJS runs, closes idle connections after 5 s unless told
# otherwise; what stands in front of the real API is not documented.
IDLE_SECONDS = 4.0
# A write is never sent again when the API closes an idle connection under us, so it goes out on a
# connection that answered a moment ago, or on a new one.
PROVEN_SECONDS = 0.5
# How often the file of the authorities is looked at, by `stat`, while requests are sent.
LOOK_SECONDS = 1.0
# By how much the greatest age of a connection differs, so that not all are made anew at once.
JITTER = 0.2
CONNECT_RESULTS: dict[type[UpstreamError], str] = {
    UpstreamTimeoutError: "timeout",
    UpstreamTlsError: "tls",
    UpstreamCertificateError: "tls",
    UpstreamUnreachableError: "unreachable",
    UpstreamLoopError: "unreachable",
    UpstreamExhaustedError: "exhausted",
}


class PoolWatcher(Protocol):
    """What is told about connections; metrics listen."""

    def connected(self, result: str) -> None:
        """A connection was made, or not: one of `watchers.CONNECTS`."""

    def closed(self, reason: str) -> None:
        """A connection is closed, for one of `interface.CLOSES`."""

    def waited(self, result: str) -> None:
        """All were in use; in the end it was `ok`, `busy` or `left`."""


class Pool:
    """Connections to one address.

    A connection whose answer was not read to its end, or on which anything arrived while it lay
    idle, is never handed out again: those bytes would be another organization's answer.
    """

    def __init__(
        self,
        address: UpstreamAddress,
        *,
        timeouts: TimeoutsConfig,
        connections: int,
        now: Callable[[], float],
        watcher: PoolWatcher,
        is_own: Callable[[str, int], bool] = lambda _host, _port: False,
        max_age: float = 0.0,
        random: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Connect to `address`, unless `is_own` says that it is this proxy's own.

        No request begins on a connection older than `max_age` seconds; 0 is no limit.
        """
        self._address = address
        self._timeouts = timeouts
        self._buffer = memoryview(bytearray(RECEIVED_MOST))
        self._now = now
        self._watcher = watcher
        self._is_own = is_own
        self._max_age = max_age
        self._random = random
        self._look_at = now() + LOOK_SECONDS
        self._limit = connections
        self._idle: deque[Connection] = deque()
        self._slots = TimedSemaphore(connections, patience=timeouts.pool, late=_busy)
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
    def connecting(self) -> int:
        """Connections that are being made."""
        return self._limit - self._slots.free - len(self._active)

    @property
    def free(self) -> int:
        """How many more requests may be sent now."""
        return self._slots.free

    @property
    def waiting(self) -> int:
        """Requests that wait for one of the connections to come free."""
        return self._slots.waiting

    async def send(
        self, request: UpstreamRequest, breaker: GuardedUpstream | None = None
    ) -> UpstreamResponse:
        """Send once on a pooled or new connection and wait for the head of the answer.

        A `breaker` is asked before, and told how it ended.
        """
        number = breaker.allow_request(request) if breaker is not None else 0
        turn: asyncio.Future[None] | None = None
        connection: Connection | None = None
        try:
            if not self._slots.acquire():
                turn = self._slots.queue()  # first come, first served
                await turn
                turn = None
                self._watcher.waited("ok")
            if not request.fresh:
                connection = self._pop(is_write=request.is_write)
            if connection is None:
                self._make_room()
                connection = await self._connect()
            self._active.add(connection)
            reply = connection.begin(request)
            if request.body is not None:
                await connection.upload(reply, request.body, chunked=request.length is None)
            while not reply.head_done:
                await reply.arrival()
        except BaseException as error:
            self._give_up(error, turn, connection)
            if breaker is not None:
                breaker.failed(number, error)
            raise
        if breaker is not None:
            breaker.answered()
        return reply

    def _give_up(
        self,
        error: BaseException,
        turn: asyncio.Future[None] | None,
        connection: Connection | None,
    ) -> None:
        """Clean up behind a request: it still waits in turn, has a place only, or a connection."""
        if turn is not None:
            self._slots.cancel(turn)
            self._watcher.waited("busy" if isinstance(error, UpstreamBusyError) else "left")
        elif connection is None:
            self._slots.release()
        else:
            connection.abort("error" if isinstance(error, UpstreamError) else "left")

    def _make_room(self) -> None:
        """Close what has been idle the longest: all together may not be more than the limit."""
        while self._idle and len(self._idle) > self._slots.free:
            self._idle.popleft().abort("limit")

    def _pop(self, *, is_write: bool) -> Connection | None:
        now = self._now()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self.refresh_trust()
        while self._idle:
            connection = self._idle.pop()
            age = now - connection.idle_since
            outdated = self._outdated(connection, now=now)
            if age >= IDLE_SECONDS:
                connection.abort("idle")
            elif outdated is not None:
                connection.abort(outdated)
            elif not connection.is_quiet:
                connection.abort("dirty")
            elif is_write and age >= PROVEN_SECONDS:
                self._idle.append(connection)  # good enough for a read
                return None
            else:
                connection.reused = True
                return connection
        return None

    def refresh_trust(self) -> None:
        """Read the authorities again if their file has changed."""
        if self._address.trust is not None:
            self._address.trust.refresh()

    def _outdated(self, connection: Connection, *, now: float) -> str | None:
        """Say why no further request may begin on a connection; `None` if one may."""
        if connection.tls is not self._address.tls:
            return "trust"
        return "age" if now >= connection.expires_at else None

    async def _connect(self) -> Connection:
        result = "left"
        tls = self._address.tls
        try:
            connection = await dial(
                self._address,
                seconds=self._timeouts.connect,
                protocol=self._new_connection,
                is_own=self._is_own,
            )
            result = "ok"
        except UpstreamError as error:
            result = CONNECT_RESULTS[type(error)]
            raise
        finally:
            self._watcher.connected(result)
        connection.tls = tls
        if self._max_age:
            connection.expires_at = self._now() + self._max_age * (1 - JITTER * self._random())
        return connection

    def _new_connection(self) -> Connection:
        return Connection(
            asyncio.get_running_loop(),
            timeouts=self._timeouts,
            buffer=self._buffer,
            released=self._release,
            closed=self._forget,
        )

    def _release(self, connection: Connection) -> None:
        """Take back a connection at the end of an exchange; called once per acquired one."""
        if connection not in self._active:
            return
        self._active.remove(connection)
        self._slots.release()
        if not connection.is_open:
            return
        now = self._now()
        outdated = self._outdated(connection, now=now)
        if outdated is not None:
            connection.abort(outdated)
        else:
            connection.idle_since = now
            self._idle.append(connection)
            if self._reaper is None:
                self._schedule_reaper()

    def _forget(self, connection: Connection, reason: str) -> None:
        """Take note of a connection that is closed; called once for each that was made."""
        self._watcher.closed(reason)
        with suppress(ValueError):  # most are not idle
            self._idle.remove(connection)

    def _schedule_reaper(self) -> None:
        loop = asyncio.get_running_loop()
        self._reaper = loop.call_later(IDLE_SECONDS, self._reap)

    def _reap(self) -> None:
        self._reaper = None
        limit = self._now() - IDLE_SECONDS
        while self._idle and self._idle[0].idle_since <= limit:
            self._idle.popleft().abort("idle")
        if self._idle:
            self._schedule_reaper()

    def close(self) -> None:
        """Break every connection; what is in the middle of an exchange fails."""
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        for connection in (*self._idle, *self._active):
            connection.abort("stop")


def _busy() -> UpstreamBusyError:
    return UpstreamBusyError("all connections to the API are in use")
