"""The requests of one connection, each served in its turn, all of them in the connection's task.

aiohttp's connection underneath keeps the account with its server and the transport. Its own serving
is not used: it has a task, a record with a URL, a dictionary of headers and a writer for each
request, and an answer of its own for handlers that fail, which would follow one already sent.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from aiohttp.web_protocol import PayloadAccessError, RequestHandler, RequestPayloadError

from proxy.breakoff import break_off
from proxy.errors import CallerError

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Awaitable, Callable

    from aiohttp import StreamReader
    from aiohttp.web import Server

    from proxy.answers import Answer
    from proxy.errors import ProxyError
    from proxy.request import Request

    Respond = Callable[[Request], Awaitable[Answer]]
    Refuse = Callable[[Request, ProxyError], Awaitable[Answer]]

LINGER_SECONDS = 1.0  # how long what a refused caller still sends is read and thrown away
WAITING_MOST = 8  # requests of a connection that wait for their turn; then it is not read from


class NoParser:
    """What aiohttp tells its parser, where there is none."""

    def pause_reading(self) -> None:
        """The transport is paused as well."""


class Turns(RequestHandler):
    """A connection on which somebody else puts requests into `_waiting`."""

    __slots__ = ("_ending", "_left", "_lost", "_patience", "_refuse", "_waiting")

    def __init__(
        self,
        server: Server,
        *,
        refuse: Refuse,
        idle_timeout: float,
        patience: float,
        **options: Any,
    ) -> None:
        """Serve; an answer that is written has `patience` seconds to be taken in the end."""
        super().__init__(server, keepalive_timeout=idle_timeout, **options)
        self._parser = cast("Any", NoParser())
        self._max_msg_queue_size, self._msg_queue_resume_size = WAITING_MOST, WAITING_MOST // 2
        self._waiting: deque[Request] = cast("Any", self._messages)
        self._refuse = refuse
        self._patience = patience
        self._left: asyncio.Future[None] | None = None
        self._ending: asyncio.Transport | None = None
        """What is closed, and has still to send something."""
        self._lost: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Answer one request after the other, all of them in the task of the connection."""
        respond = cast("Respond", self._request_handler)
        try:
            while not self._force_close:
                if not self._waiting:
                    self._waiter = self._loop.create_future()
                    try:
                        await self._waiter
                    finally:
                        self._waiter = None
                request = self._begin_turn()
                try:
                    if request.broken is None:
                        answer = await respond(request)
                    else:
                        answer = await self._refuse(request, request.broken)
                        await self._linger()
                except CallerError:
                    break  # nobody is there any more, or nobody reads
                except Exception as error:  # noqa: BLE001  # another answer would follow what was sent
                    self.log_exception("a request could not be ended", exc_info=error)
                    break
                finally:
                    self._end_turn()
                if request.body_exists:
                    await self._pass_over(request.content)
                if self._close or not answer.keep_alive:
                    break
                self._stay_open()
        except RequestPayloadError:
            self.force_close()  # malformed, and read only to be thrown away
        except BaseException:
            self.force_close()
            raise
        self._finish()

    def _begin_turn(self) -> Request:
        request = self._waiting.popleft()
        if self._buffer_paused and len(self._waiting) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        cast("Server", self._manager).requests_count += 1
        self._current_request = request  # type: ignore[assignment]  # all it does is cancel it
        self._request_in_progress = True
        return request

    def _end_turn(self) -> None:
        self._current_request, self._request_in_progress = None, False
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)

    def _finish(self) -> None:
        """Close, but do not wait for ever for the caller to take what was written."""
        if self.transport is not None and not self._force_close:
            self._task_handler = None
            self.transport.close()
        self._end_in_time(self.transport)

    async def _pass_over(self, body: StreamReader) -> None:
        """Read on for a while what nobody wanted of a body; without its end, nothing can follow."""
        if not body.is_eof() and not self._force_close:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while not body.is_eof():
                        await body.readany()
            if not body.is_eof() and not self._force_close:
                self.close()
        body.set_exception(PayloadAccessError())

    def _stay_open(self) -> None:
        """Wait for the next request, but not for ever: one timer looks when the last answer was."""
        if self._force_close:
            return
        at = self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(at, self._process_keepalive)

    async def drain(self) -> None:
        """Wait while the caller does not take what is written."""
        if self.transport is not None:
            await self._drain_helper()

    async def _linger(self) -> None:
        """Say goodbye and read on a while: a reset would destroy the answer on its way."""
        transport = self.transport
        if transport is None or not transport.can_write_eof():
            return
        self._left = self._loop.create_future()
        with suppress(TimeoutError, OSError):  # the caller may have ended the connection by now
            transport.write_eof()
            async with asyncio.timeout(LINGER_SECONDS):
                await self._left

    def force_close(self) -> None:
        """Close, and do not wait for ever for the caller to take what was written."""
        transport = self.transport
        super().force_close()
        self._end_in_time(transport)

    def _end_in_time(self, transport: asyncio.Transport | None) -> None:
        if transport is not None and transport.get_write_buffer_size():
            self._ending = transport
            self._loop.call_later(self._patience, break_off, transport)

    @property
    def unsent(self) -> int:
        """How many bytes of answers the system has not taken yet; over TLS, at least so many."""
        transport = self._ending or self.transport
        return transport.get_write_buffer_size() if transport is not None else 0

    async def until_sent(self) -> None:
        """Wait for the end of a connection that ends, if there is something to send before it."""
        if self.unsent:
            self._lost = self._loop.create_future()
            await self._lost

    def connection_lost(self, exc: BaseException | None) -> None:
        """Clean up."""
        super().connection_lost(exc)
        self._ending = None
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)

    def close(self) -> None:
        """End after the request it is on; at once if there is none, where aiohttp goes deaf."""
        super().close()
        if not self._waiting and (self._waiter is not None or not self._request_count):
            self.force_close()
