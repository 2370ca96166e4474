"""The conversation on one connection to the API, parsed by llhttp (httptools).

Why not `aiohttp.ClientSession`: it invents headers, merges header lines, repeats requests by
itself, and hands out connections on which surplus bytes arrived. Here the bytes of a header are
what is sent, the framing is our own, and an answer ends exactly once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from proxy.errors import UpstreamBrokenError, UpstreamError, UpstreamTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.config import TimeoutsConfig
    from proxy.upstream import Body, UpstreamRequest

HIGH_WATER = 256 * 1024  # bytes of a body held before the socket is no longer read
HEAD_LIMIT = 256 * 1024  # bytes of a head; llhttp sets no limit of its own
BODILESS = frozenset({204, 304})  # RFC 9112, 6.3
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
SWITCHING_PROTOCOLS = 101
FIRST_FINAL_STATUS = 200


class Connection(asyncio.Protocol):
    """Serves one request after the other; afterwards it is either clean or closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        timeouts: TimeoutsConfig,
        released: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._timeouts = timeouts
        self._released = released
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Future[None] | None = None
        self._paused_writing = False
        self.idle_since = 0.0
        self.reused = False
        self._busy = False
        self._reset(method="")

    def _reset(self, *, method: str) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._method = method
        self._waiter: asyncio.Future[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._head_bytes = 0
        self._head_done = False
        self._complete = False
        self._keep_alive = False
        self._until_close = False
        self._sent = False
        self._answered = False
        self._error: BaseException | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._paused_reading = False
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []

    # -- what the pool and the reader of the answer use -----------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether another request may be written."""
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, request: UpstreamRequest) -> Connection:
        """Write the request and wait for the head of the answer, which may come first."""
        self._busy = True
        self._reset(method=request.method)
        self._write(encode_head(request))
        if request.body is not None:
            await self._upload(request.body, chunked=request.length is None)
        if not self._head_done:
            await self._wait(lambda: self._head_done, seconds=self._timeouts.first_byte)
        return self

    async def read(self) -> bytes:
        """Give what has arrived of the body, or nothing at its end."""
        if not self._chunks and not self._complete:
            await self._wait(
                lambda: bool(self._chunks) or self._complete, seconds=self._timeouts.idle
            )
        data = self.take()
        if not data:
            self._finish()
        return data

    def take(self) -> bytes:
        """Give what has arrived of the body without waiting; perhaps nothing yet."""
        if not self._chunks:
            return b""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._paused_reading and self._transport is not None:
            self._paused_reading = False
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        """End the exchange: nothing more is read from it."""
        if self._busy:
            if self._complete and not self._chunks:
                self._finish()
            else:
                self.abort()

    def abort(self) -> None:
        """Break the connection at once."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._done()

    # -- sending ----------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise self._broken("the connection to the API closed")
        self._sent = True
        self._transport.write(data)

    async def _upload(self, body: Body, *, chunked: bool) -> None:
        """Send the body until it ends or the head of an answer arrives, whichever is first."""
        pump = self._loop.create_task(self._send_body(body, chunked=chunked), name="upload")
        pump.add_done_callback(self._pumped)
        self._pump = pump
        await self._wait(lambda: pump.done() or self._head_done, seconds=None)

    def _pumped(self, pump: asyncio.Task[None]) -> None:
        """Tell whoever waits for the answer how the upload ended."""
        failure = None if pump.cancelled() else pump.exception()
        # An API that has begun to answer may stop reading; its answer is the truth then.
        if isinstance(failure, UpstreamError) and self._answered:
            failure = None
        if self._error is None and pump is self._pump:
            self._error = failure
        self._wake()

    async def _send_body(self, body: Body, *, chunked: bool) -> None:
        while data := await body.read():
            self._write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            if self._paused_writing:
                await self._drain()
        if chunked:
            self._write(b"0\r\n\r\n")

    async def _drain(self) -> None:
        self._writable = self._loop.create_future()
        try:
            async with asyncio.timeout(self._timeouts.idle):
                await self._writable
        except TimeoutError:
            raise self._late("the API stopped taking the body") from None
        finally:
            self._writable = None

    def pause_writing(self) -> None:
        """Called by the transport when its buffer is full."""
        self._paused_writing = True

    def resume_writing(self) -> None:
        """Called by the transport when there is room again."""
        self._paused_writing = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # -- waiting ----------------------------------------------------------------------------------

    async def _wait(self, reached: Callable[[], bool], *, seconds: float | None) -> None:
        """Wait until a state is reached; raise what ended the exchange before."""
        try:
            async with asyncio.timeout(seconds):
                while not reached():
                    if self._error is not None:
                        raise self._error
                    self._waiter = self._loop.create_future()
                    await self._waiter
        except TimeoutError:
            raise self._late("the API did not answer in time") from None
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _broken(self, detail: str) -> UpstreamBrokenError:
        return UpstreamBrokenError(
            detail, sent=self._sent, answered=self._answered, reused=self.reused
        )

    def _late(self, detail: str) -> UpstreamTimeoutError:
        return UpstreamTimeoutError(
            detail, sent=self._sent, answered=self._answered, reused=self.reused
        )

    def _fail(self, detail: str) -> None:
        """The exchange cannot go on; what was received before stays readable."""
        if not self._complete and self._error is None:
            self._error = self._broken(detail)
        self._keep_alive = False
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _finish(self) -> None:
        """The answer was read to its end: keep the connection only if it is clean."""
        if not self._keep_alive or (self._pump is not None and not self._pump.done()):
            self.abort()
        else:
            self._done()

    def _done(self) -> None:
        if self._pump is not None and not self._pump.done():
            self._pump.cancel()
        if self._busy:
            self._busy = False
            self._released(self)

    # -- what the event loop calls ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called once, when connected."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse; surplus bytes on an idle or finished connection end it."""
        if not self._busy or self._complete:
            self._fail("the API sent bytes that nobody asked for")
            return
        self._answered = True
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("what the API sent is not HTTP")
            return
        if not self._head_done and self._head_bytes > HEAD_LIMIT:
            self._fail("the API sent a head without end")
            return
        if self._buffered > HIGH_WATER and not self._paused_reading and self._transport:
            self._paused_reading = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """A body without length ends here; anything else that is unfinished is cut off."""
        if self._until_close and exc is None and self._error is None:
            self._complete = True
        self._fail("the API closed the connection")
        self._transport = None
        if self._writable is not None and not self._writable.done():
            self._writable.set_exception(self._broken("the API closed the connection"))

    # -- what the parser calls --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A second message in the bytes of the first is surplus: this connection ends with it."""
        if self._complete:
            self._keep_alive = False

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, perhaps in pieces."""
        if not self._head_done:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the head; trailers come after it and are dropped."""
        if not self._head_done:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide how the body ends (RFC 9112, 6.3); interim answers are passed over."""
        if self._head_done:
            return
        status = self._parser.get_status_code()
        if status < FIRST_FINAL_STATUS and status != SWITCHING_PROTOCOLS:
            self.reason = b""
            self.headers.clear()
            return
        self.status = status
        self._head_done = True
        self._keep_alive = self._parser.should_keep_alive()
        if self._method == "HEAD":
            # llhttp does not know that no body follows; `_reset` makes a new parser next time.
            self._complete = True
        elif status not in BODILESS:
            self._until_close = FRAMING.isdisjoint(name.lower() for name, _ in self.headers)

    def on_body(self, data: bytes) -> None:
        """Bytes of the body, without framing."""
        if self._complete:
            self._keep_alive = False
        else:
            self._chunks.append(data)
            self._buffered += len(data)

    def on_message_complete(self) -> None:
        """The end of the answer, or of an interim one."""
        if self._head_done and not self._complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()


def encode_head(request: UpstreamRequest) -> bytes:
    """Write the request line, the headers as they are, and our own framing."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.target)]
    lines += [b"%b: %b" % header for header in request.headers]
    if request.length is not None:
        lines.append(b"Content-Length: %d" % request.length)
    elif request.body is not None:
        lines.append(b"Transfer-Encoding: chunked")
    lines += (b"", b"")
    return b"\r\n".join(lines)
