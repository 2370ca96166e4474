"""One connection to the API: requests go out one after the other, with one timer for all waits.

Most waits end long before their time. A timer of its own for each costs more than the wait; this
one stays, and looks when it goes off whether the wait it was for is still the one.

Why not `aiohttp.ClientSession`: it invents headers, merges header lines, repeats requests by
itself, and hands out connections on which surplus bytes arrived. Here the bytes of a header are
what is sent, the framing is our own, and an answer ends exactly once (see `response`).
"""

from __future__ import annotations

import asyncio
import math
import select
import ssl
from typing import TYPE_CHECKING, cast

from icr_proxy.errors import UpstreamError
from icr_proxy.upstream.response import HIGH_WATER, Http1Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.config.models import TimeoutsConfig
    from icr_proxy.upstream.interface import UpstreamBody, UpstreamRequest

# uvloop rounds to the millisecond: without this, a timer that comes a little early comes twice.
SLACK_SECONDS = 0.001


class DeadlineTimer:
    """A timer for one deadline at a time, which it reuses."""

    __slots__ = ("_due", "_loop", "_ring", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ring: Callable[[], None] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def start(self, seconds: float, ring: Callable[[], None]) -> None:
        """Start the timer for so many seconds, in place of what it was started for before."""
        self._due = due = self._loop.time() + seconds
        self._ring = ring
        if self._timer is None:
            self._start(due)
        elif due < self._timer_at:
            self._timer.cancel()
            self._start(due)

    def cancel(self) -> None:
        """Do not ring, and forget for whom; the timer stays for the next."""
        self._ring = None

    def stop(self) -> None:
        """Do not ring any more, and leave no timer behind."""
        self._ring = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at: float) -> None:
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._go_off)

    def _go_off(self) -> None:
        self._timer = None
        ring = self._ring
        if ring is None:
            return
        if self._due > self._loop.time() + SLACK_SECONDS:
            self._start(self._due)
        else:
            self._ring = None
            ring()


RECEIVED_MOST = 384 * 1024  # bytes at a time
LOOKS_MOST = 3  # rounds of the event loop; both loops read in the first or second one


class Connection(asyncio.BufferedProtocol):
    """Serves one request after the other; afterwards it is either clean or closed.

    It lends the transport a buffer: without one, each read of a TLS connection makes a string as
    long as the longest that could come, and shortens it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        timeouts: TimeoutsConfig,
        buffer: memoryview,
        released: Callable[[Connection], None],
        closed: Callable[[Connection, str], None],
    ) -> None:
        """Speak over what `create_connection` gives; one `buffer` does for all connections.

        `released` is called after each exchange, `closed` once, with one of `interface.CLOSES`.
        """
        self._loop = loop
        self._timeouts = timeouts
        self._buffer = buffer
        self._released = released
        self._closed: Callable[[Connection, str], None] | None = closed
        self._transport: asyncio.Transport | None = None
        self._reply: Http1Response | None = None
        self._pump: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._paused_writing = False
        self._paused_reading = False
        self._alarm = DeadlineTimer(loop)
        self._waits = select.poll()
        self.idle_since = 0.0
        self.expires_at = math.inf
        """When it is too old for another request, by the pool's clock."""
        self.tls: ssl.SSLContext | None = None
        """What the API's certificate was verified by."""
        self.reused = False

    # -- what the pool uses -----------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether another request may be written."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Whether it is open and nothing waits in it: no goodbye, no answer nobody asked for.

        The event loop may not have looked since it arrived, and it must not be taken for the
        answer to the next request.
        """
        if self._transport is None or self._transport.is_closing():
            return False
        return not self._waits.poll(0)

    def begin(self, request: UpstreamRequest) -> Http1Response:
        """Write the head of the request; without a body, the API's time to answer begins."""
        self._reply = reply = Http1Response(
            source=self,
            alarm=self._alarm,
            loop=self._loop,
            method=request.method,
            reused=self.reused,
            idle=self._timeouts.idle,
        )
        self._pump = None
        self._write(reply, encode_head(request))
        request.sent = True
        if request.body is None:
            self._alarm.start(self._timeouts.first_byte, reply.expire)
        return reply

    async def upload(self, reply: Http1Response, body: UpstreamBody, *, chunked: bool) -> None:
        """Send the body until it ends or the head of an answer arrives, whichever is first."""
        self._pump = pump = self._loop.create_task(
            self._send_body(reply, body, chunked=chunked), name="upload"
        )
        pump.add_done_callback(lambda done: _pumped(done, reply))
        while not (reply.head_done or pump.done()):
            await reply.arrival()
        if not reply.head_done:
            reply.allow(self._timeouts.first_byte)

    def abort(self, reason: str) -> None:
        """Break the connection at once; `reason` is one of `interface.CLOSES`."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._reply is not None:
            self._reply.fail(self._reply.broken("the connection to the API was given up"))
        self._end(reason)
        self._done()

    def _end(self, reason: str) -> None:
        """Tell once why it is closed."""
        self._alarm.stop()
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(self, reason)

    # -- what the answer uses ---------------------------------------------------------------------

    def want_more(self) -> None:
        """Read on after a pause: what was held of the body has been taken."""
        if self._paused_reading and self._transport is not None:
            self._paused_reading = False
            self._transport.resume_reading()

    def finish(self, reply: Http1Response) -> None:
        """End the exchange: keep the connection only if it is clean."""
        if reply is not self._reply:
            return
        if reply.is_clean and (self._pump is None or self._is_sent_whole()):
            self._done()
        else:
            self.abort(self._why(reply))

    def _why(self, reply: Http1Response) -> str:
        """Say what keeps the connection from being used again."""
        if reply.error is not None:
            return "error" if isinstance(reply.error, UpstreamError) else "left"
        if not reply.is_read:
            return "left"
        if reply.has_surplus:
            return "dirty"
        return "last" if self._is_sent_whole() else "unsent"

    def _is_sent_whole(self) -> bool:
        """Whether the API is not waiting for more of the body: it would take the next request."""
        pump = self._pump
        return pump is None or (pump.done() and not pump.cancelled() and pump.exception() is None)

    def _done(self) -> None:
        if self._pump is not None and not self._pump.done():
            self._pump.cancel()
        self._alarm.cancel()
        if self._reply is not None:
            self._reply = None
            self._released(self)

    # -- sending ----------------------------------------------------------------------------------

    def _write(self, reply: Http1Response, data: bytes) -> None:
        if reply is not self._reply or self._transport is None or self._transport.is_closing():
            raise reply.broken("the connection to the API closed")
        reply.sent = True
        self._transport.write(data)

    async def _send_body(self, reply: Http1Response, body: UpstreamBody, *, chunked: bool) -> None:
        while (data := await body.read()) or chunked:
            await self._read_before_writing(reply)
            self._write(reply, b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            if not data:  # and the chunk without data was the last one
                return
            if self._paused_writing:
                await self._drain(reply)

    async def _read_before_writing(self, reply: Http1Response) -> None:
        """Let the event loop read first, if something has arrived.

        An API that answers early may close the connection at once, which resets it. A write to a
        connection that is reset loses the answer that was received before.
        """
        for _ in range(LOOKS_MOST):
            if reply.complete or self._paused_reading or not self._waits.poll(0):
                return
            await asyncio.sleep(0)

    async def _drain(self, reply: Http1Response) -> None:
        self._writable = self._loop.create_future()
        try:
            async with asyncio.timeout(self._timeouts.idle):
                await self._writable
        except TimeoutError:
            raise reply.late("the API stopped taking the body") from None
        finally:
            self._writable = None

    # -- what the event loop calls ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called once, when connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._waits.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # any length will do
        """Lend what is received into; it is emptied before anybody else receives."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was received."""
        if self._transport is None:
            return
        if self._reply is None:
            self.abort("dirty")  # it belongs to no answer
        elif not self._reply.feed(self._buffer[:nbytes]):
            self._transport.abort()
        elif self._reply.buffered > HIGH_WATER and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """Nothing more comes, which is the end of a body without length."""
        if self._reply is not None and self._transport is not None:
            tls = self._transport.get_extra_info("ssl_object")
            if tls is None or _said_goodbye(tls):
                self._reply.end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # all end the same
        """Fail whatever is unfinished."""
        self._transport = None
        if self._reply is not None:
            self._reply.fail(self._reply.broken("the API closed the connection"))
        else:
            self._end("closed")
        self.resume_writing()  # the next write finds out

    def pause_writing(self) -> None:
        """Called by the transport when its buffer is full."""
        self._paused_writing = True

    def resume_writing(self) -> None:
        """Called by the transport when there is room again."""
        self._paused_writing = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)


def _pumped(pump: asyncio.Task[None], reply: Http1Response) -> None:
    """Tell whoever waits for the answer how the upload ended."""
    failure = None if pump.cancelled() else pump.exception()
    # An API that has begun to answer may stop reading; its answer is the truth then.
    if failure is not None and not (isinstance(failure, UpstreamError) and reply.answered):
        reply.fail(failure)
    reply.wake()


def _said_goodbye(tls: ssl.SSLObject) -> bool:
    """Whether the API ended the TLS session itself; anybody on the way can end the connection.

    asyncio tells the protocol of both in the same way (RFC 9112, 9.8).
    """
    try:
        return not tls.read(1)
    except ssl.SSLError:
        return False


def encode_head(request: UpstreamRequest) -> bytes:
    """Write the request line, the headers as they are, and our own framing."""
    if request.length is not None:
        framing = b"Content-Length: %d\r\n\r\n" % request.length
    else:
        framing = b"\r\n" if request.body is None else b"Transfer-Encoding: chunked\r\n\r\n"
    lines = request.lines.write() if request.lines is not None else b""
    if request.headers:
        lines += b"".join([b"%b: %b\r\n" % header for header in request.headers])
    return b"%b %b HTTP/1.1\r\n%b%b" % (request.method.encode(), request.target, lines, framing)
