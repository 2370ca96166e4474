"""One answer of the API in the making: bytes go in, a head and a body come out.

Each request gets a new one, and it lets go of the connection at its end. Whoever still holds an
answer that is over cannot reach the connection any more, which by then may carry another
organization's request. Parsed by llhttp (httptools).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import httptools
import msgspec

from icr_proxy.errors import UpstreamBrokenError, UpstreamMalformedError, UpstreamTimeoutError
from icr_proxy.http1.response_head import (
    BODILESS,
    CONTENT_LENGTH,
    ResponseHead,
    read_response_head,
    skip_interim,
)

if TYPE_CHECKING:
    import asyncio

    from icr_proxy.upstream.connection import DeadlineTimer

HIGH_WATER = 128 * 1024  # bytes of a body held before the socket is no longer read
HEAD_LIMIT = 256 * 1024  # bytes of a head; llhttp sets no limit of its own


class ResponseSource(Protocol):
    """The connection under an answer."""

    def want_more(self) -> None:
        """What was held of the body has been taken."""

    def finish(self, reply: Http1Response) -> None:
        """Nothing more is read of this answer."""


class Http1Response(msgspec.Struct, kw_only=True, eq=False, weakref=True):
    """The answer to one request; what `interface.UpstreamResponse` promises."""

    source: ResponseSource | None
    alarm: DeadlineTimer
    loop: asyncio.AbstractEventLoop
    method: str
    """Of the request: an answer to `HEAD` has no body."""
    reused: bool
    idle: float
    """How many seconds its body may pause."""
    buffered: int = 0
    """Bytes of the body that nobody has taken yet."""
    status: int = 0
    head: ResponseHead = cast("ResponseHead", None)
    """What came before the body, once it is here."""
    sent: bool = False
    """Whether any byte of the request was handed to the connection."""
    answered: bool = False
    """Whether any byte of an answer came back."""
    head_done: bool = False
    """Whether `status` and `head` are known."""
    complete: bool = False
    """Whether the last byte of the answer has arrived."""
    has_surplus: bool = False
    """Whether more came than the answer."""
    keep_alive: bool = False
    error: BaseException | None = None
    """What ended it before its end."""
    _parser: httptools.HttpResponseParser = cast("httptools.HttpResponseParser", None)
    _waiter: asyncio.Future[None] | None = None
    _is_late: bool = False
    _chunks: list[bytes] = []
    _until_close: bool = False
    _begun: list[bytes] = []
    """What came so far, until the head is whole."""
    _begun_size: int = 0
    _interim: bytes | None = b""
    """What may be an interim response and is not whole; None once the final head has begun."""

    def __post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    __repr__ = object.__repr__  # not what the API said

    # -- what the reader of the answer uses -------------------------------------------------------

    async def read(self) -> bytes:
        """Give what has arrived of the body, or nothing at its end."""
        if not self._chunks and not self.complete:
            self.allow(self.idle)
            while not self._chunks and not self.complete:
                await self.arrival()
        data = self.read_nowait() if self._chunks else b""
        if not data:
            self.close()
        return data

    def read_nowait(self) -> bytes:
        """Give what has arrived of the body without waiting; perhaps nothing yet."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        held, self.buffered = self.buffered, 0
        if held > HIGH_WATER and self.source is not None:
            self.source.want_more()
        return data

    def close(self) -> None:
        """End the exchange: nothing more is read from it."""
        source, self.source = self.source, None
        if source is not None:
            source.finish(self)
            # It refers to us in turn; nobody feeds us any more, and without this circle there is
            # nothing left of a request for the garbage collector to find.
            del self._parser
        if not self.complete:
            self.fail(self.broken("the answer was given up"))

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header lines one by one."""
        return self.head.headers

    @property
    def is_clean(self) -> bool:
        """Whether it came and was read to its end, so that the next byte belongs to another."""
        return self.keep_alive and self.error is None and self.complete and not self._chunks

    @property
    def is_read(self) -> bool:
        """Whether all of it came and was taken."""
        return self.complete and not self._chunks

    # -- waiting ----------------------------------------------------------------------------------

    def allow(self, seconds: float) -> None:
        """From now on what is waited for may take so long."""
        self._is_late = False
        self.alarm.start(seconds, self.expire)

    def arrival(self) -> asyncio.Future[None]:
        """Give what to await until something has changed; raise what ended the exchange before."""
        if self.error is not None:
            raise self.error
        if self._is_late:
            raise self.late("the API did not answer in time")
        self._waiter = waiter = self.loop.create_future()
        return waiter

    def expire(self) -> None:
        """Let whoever waits find out that it took too long."""
        self._is_late = True
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, error: BaseException) -> None:
        """End it unless it has ended; what was received before stays readable."""
        if not self.complete and self.error is None:
            self.error = error
        self.keep_alive = False
        self.wake()

    def broken(self, detail: str) -> UpstreamBrokenError:
        """Say that it broke off, with the facts that decide whether to send again."""
        return UpstreamBrokenError(
            detail, sent=self.sent, answered=self.answered, reused=self.reused
        )

    def malformed(self, detail: str) -> UpstreamMalformedError:
        """Say that it is HTTP, but not valid, with the same facts."""
        return UpstreamMalformedError(
            detail, sent=self.sent, answered=self.answered, reused=self.reused
        )

    def late(self, detail: str) -> UpstreamTimeoutError:
        """Say that it took too long, with the same facts."""
        return UpstreamTimeoutError(
            detail, sent=self.sent, answered=self.answered, reused=self.reused
        )

    # -- what the connection calls ----------------------------------------------------------------

    def feed(self, data: bytes | memoryview) -> bool:
        """Take what arrived, before anything else does; say whether the connection can go on."""
        if self.complete:
            self._spoil()
            return False
        self.answered = True
        in_head = not self.head_done
        try:
            if in_head:
                data = bytes(data)  # of a body the parser makes a copy by itself
                self._begun_size += len(data)
                if self._interim is not None:
                    data = self._without_interim(self._interim + data)
                self._begun.append(data)
            self._parser.feed_data(data)
        except (ValueError, httptools.HttpParserError, httptools.HttpParserUpgrade):
            told = "what the API sent is not HTTP that can be passed on"
            self.fail(self.malformed(told) if self._is_http(data) else self.broken(told))
            return False
        if in_head:
            if not self.head_done:
                return self._may_grow()
            if self.method == "HEAD" and sum(map(len, self._begun)) > self.head.end:
                self._spoil()
            self._begun.clear()
        self.wake()
        return True

    def _is_http(self, data: bytes | memoryview) -> bool:
        """Whether the answer began like HTTP: if not, something else listens there for a while."""
        begun = self._begun[0] if self._begun else (self._interim or b"") + bytes(data)
        return self.head_done or begun.startswith(b"HTTP/")

    def _without_interim(self, data: bytes) -> bytes:
        """Give what the parser gets: nothing while an interim response may still be going on."""
        at = skip_interim(data)
        if at is None:
            self._interim = data
            return b""
        self._interim = None
        return data[at:] if at else data

    def _may_grow(self) -> bool:
        """Whether a head that is not over may go on."""
        if self._begun_size <= HEAD_LIMIT:
            return True
        self.fail(self.malformed("the API sent a head without end"))
        return False

    def _spoil(self) -> None:
        """Keep what comes after the answer from becoming the next one."""
        self.has_surplus = True
        self.keep_alive = False

    def end(self) -> None:
        """Take the end of what the API sends: its last word, if the body has no other end."""
        if self._until_close and self.error is None:
            self.complete = True
        self.fail(self.broken("the API closed the connection"))

    # -- what the parser calls --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A second message in the bytes of the first is surplus: the connection ends with it."""
        if self.complete:
            self._spoil()

    def on_headers_complete(self) -> None:
        """Decide how the body ends (RFC 9112, 6.3)."""
        if self.head_done:
            return
        parser = self._parser
        head = read_response_head(b"".join(self._begun))
        if (
            head is None
            or head.line.status != parser.get_status_code()
            or (head.codings and not head.is_plain)
        ):
            raise ValueError("nobody asked for this")  # ends the parsing: `feed` says how
        status = head.line.status
        self.status, self.head = status, head
        self.head_done = True
        keep_alive = parser.should_keep_alive()
        if self.method == "HEAD":
            # llhttp does not know that no body follows; the next answer gets a new parser.
            self.complete = True
            self.keep_alive = keep_alive
        elif not keep_alive and status not in BODILESS:
            # An answer after which another may come has an end of its own.
            self._until_close = not _has_end(head)

    def on_body(self, data: bytes) -> None:
        """Bytes of the body, without framing."""
        if not self.complete:
            self._chunks.append(data)
            self.buffered += len(data)

    def on_message_complete(self) -> None:
        """The end of the answer."""
        if not self.complete:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()


def _has_end(head: ResponseHead) -> bool:
    """Whether its body ends before the connection does, as far as the head says."""
    return bool(head.codings) or any(name.lower() == CONTENT_LENGTH for name, _ in head.headers)
