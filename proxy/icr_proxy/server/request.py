"""A request as a handler gets it: its head, byte for byte, and its body as a stream.

A body is never held beyond the replay buffer; what is longer can be sent only once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from icr_proxy.errors import BodyTooLargeError, CallerTimeoutError
from icr_proxy.http1.headers import refuse_long_body
from icr_proxy.http1.request_head import HeaderBlock, RequestHead

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.config.inbound_models import LimitsConfig
    from icr_proxy.errors import ProxyError
    from icr_proxy.http1.headers import Header
    from icr_proxy.observability.outcome import Digest
    from icr_proxy.server.body_stream import BodyStream
    from icr_proxy.server.connection import ClientConnection

HTTP_1_0, HTTP_1_1 = (1, 0), (1, 1)


class Request:
    """One request of a caller."""

    __slots__ = (
        "body_exists",
        "broken",
        "content",
        "content_length",
        "expects",
        "head",
        "keep_alive",
        "method",
        "protocol",
        "raw_path",
        "version",
    )

    def __init__(
        self,
        head: RequestHead,
        protocol: ClientConnection,
        content: BodyStream | None,
        broken: ProxyError | None = None,
    ) -> None:
        """Hand over what `head` says; `content` is its body, if there is one."""
        self.protocol = protocol
        self.broken = broken
        """What was wrong with it, if it could not be read."""
        self.head = head
        self.method = head.method
        self.raw_path = head.target
        """The target as received."""
        section = head.section
        self.version = HTTP_1_0 if section.is_old else HTTP_1_1
        self.keep_alive = not head.is_last
        self.content = content
        self.content_length = section.announced
        self.body_exists = section.length != 0
        self.expects = section.expects
        """Whether an answer is expected before the body is sent, in whatever words."""

    @property
    def raw_headers(self) -> tuple[Header, ...]:
        """The header lines as received; few requests are asked for them all."""
        return self.head.section.headers

    @property
    def transport(self) -> asyncio.Transport | None:
        """The way to the caller, while there is one."""
        return self.protocol.transport

    @property
    def secure(self) -> bool:
        """Whether it came over TLS."""
        return self.protocol.is_tls

    @property
    def is_unfinished(self) -> bool:
        """Whether some of its body has not arrived, or nobody can say where it ends."""
        content = self.content
        return content is not None and (not content.is_whole or content.failure is not None)

    def first(self, name: bytes) -> str:
        """Return the first value of a header, whose name is given in lower case, or nothing."""
        values = self.head.section.fields.get(name)
        return values[0].decode("utf-8", "surrogateescape") if values else ""


def unreadable(protocol: ClientConnection, error: ProxyError) -> Request:
    """Stand in for what was no request, so that it can be answered in its turn."""
    section = HeaderBlock()
    section.is_old = section.is_last = True
    return Request(RequestHead("UNKNOWN", "/", section), protocol, None, error)


PACE = 16 * 1024  # bytes that a caller must send in `limits.body_timeout`


class Stream(Protocol):
    """Where the bytes come from; a `BodyStream` is one."""

    async def read(self) -> bytes:
        """Return what is there, or wait for more; return nothing at the end."""


class ClientBody:
    """A request body with a memory of `limits.replay_buffer` bytes."""

    def __init__(
        self, stream: Stream, *, limits: LimitsConfig, first_read: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._limits = limits
        self._first_read: Callable[[], None] | None = first_read
        self._kept: list[bytes] | None = []
        self._position = 0
        self._paced = 0
        self._waited = 0.0
        self._ahead: list[bytes] = []
        self._lock = asyncio.Lock()
        self.size = 0
        """Bytes received from the caller so far."""
        self.digest: Digest | None = None
        """Hashes them as they come, if somebody wants that."""

    async def read(self) -> bytes:
        """Give the next bytes, or nothing at the end.

        Raises:
            CallerGoneError: the caller closed the connection.
            CallerTimeoutError: it took longer than `limits.body_timeout` for `PACE` bytes, or less.
            BodyTooLargeError: it sent more than `limits.body`.
            BadRequestError: its framing is broken.
        """
        async with self._lock:  # a cancelled reader may still be on its way out
            if self._kept is not None and self._position < len(self._kept):
                self._position += 1
                return self._kept[self._position - 1]
            if self._ahead:
                return self._ahead.pop(0)
            data = await self._receive()
            self._keep(data)
            return data

    async def read_ahead(self, most: int) -> tuple[bytes, bool]:
        """Receive `most` bytes or all; give them, and say if they are all. `read` gives them again.

        Only before the first `read`; raises what that raises.
        """
        pieces = []
        while self.size <= most and (data := await self.read()):
            pieces.append(data)
        if self.can_rewind:
            self.rewind()
        else:
            self._ahead = pieces
        return b"".join(pieces)[:most], self.size <= most

    async def _receive(self) -> bytes:
        if self._first_read is not None:
            self._first_read()
            self._first_read = None
        now = asyncio.get_running_loop().time
        began = now()
        try:
            async with asyncio.timeout(self._limits.body_timeout - self._waited):
                data = await self._stream.read()
        except TimeoutError:
            raise CallerTimeoutError("the request body comes too slowly") from None
        self.size += len(data)
        self._keep_pace(len(data), waited=now() - began)
        if self.digest is not None:
            self.digest.update(data)
        if self._limits.body is not None and self.size > self._limits.body:
            raise BodyTooLargeError("the request body is longer than this proxy accepts")
        return data

    def _keep_pace(self, size: int, *, waited: float) -> None:
        """Give new time only for so many bytes: one from time to time would hold a place for ever.

        Only waiting for the caller counts, not what the API takes to take it.
        """
        self._paced += size
        self._waited += waited
        if self._paced >= PACE:
            self._paced, self._waited = 0, 0.0

    def _keep(self, data: bytes) -> None:
        if self._kept is None or not data:
            return
        if self.size > self._limits.replay_buffer:
            self._kept = None
        else:
            self._kept.append(data)
            self._position += 1

    @property
    def can_rewind(self) -> bool:
        """Whether every byte read so far is still here."""
        return self._kept is not None

    def rewind(self) -> None:
        """Read from the start again; only if `can_rewind`."""
        if self._kept is None:
            raise RuntimeError("the body is longer than the replay buffer")
        self._position = 0


def open_body(
    request: Request, *, limits: LimitsConfig, go_on: Callable[[], None]
) -> tuple[ClientBody | None, int | None]:
    """Give the body, if there is one, and its length in bytes, if that is known.

    `go_on` tells a caller that sent `Expect: 100-continue` to begin; it is called when the API is
    ready to take the body, and never when the request is refused before.

    Raises:
        BodyTooLargeError: it says that it is longer than `limits.body`.
    """
    length = request.content_length
    if request.content is None:
        return None, length
    refuse_long_body(length, limit=limits.body)
    # Another expectation has been refused; HTTP/1.0 has none (RFC 9110, 10.1.1).
    waits = request.expects and request.version >= HTTP_1_1
    first_read = go_on if waits else _nothing
    return ClientBody(request.content, limits=limits, first_read=first_read), length


async def receive_body(
    request: Request, *, limits: LimitsConfig, go_on: Callable[[], None], seconds: float
) -> bytes:
    """Give the whole of a body that is meant for us, within `limits.body` and in time.

    Raises what `ClientBody.read` raises.
    """
    body, _ = open_body(request, limits=limits, go_on=go_on)
    parts = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while body is not None and (data := await body.read()):
                parts += data
    except TimeoutError:
        raise CallerTimeoutError("the request did not arrive in time") from None
    return bytes(parts)


def _nothing() -> None:
    """A caller that waits for nothing."""
