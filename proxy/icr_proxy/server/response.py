"""A response on its way to the client: exact bytes and our own framing.

After the first byte there is no error page: the connection breaks, so that a short body never looks
complete.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import CallerGoneError, CallerTimeoutError
from icr_proxy.http1.cache_control import made_private
from icr_proxy.http1.response_head import (
    EMPTY_ID_LINE,
    LENGTH_LINE,
    headers_in,
    passed_back,
    section_of,
)
from icr_proxy.net.transport import reset_connection
from icr_proxy.server.request import HTTP_1_1

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from icr_proxy.http1.headers import Header
    from icr_proxy.http1.problem import Problem
    from icr_proxy.http1.response_head import ResponseHeaders
    from icr_proxy.observability.outcome import Digest
    from icr_proxy.server.request import Request

NO_CONTENT = 204
LAST_CHUNK = b"0\r\n\r\n"
# What ends a head, by whether the connection goes on and the caller is one of HTTP/1.0.
CONNECTION = {
    (True, False): b"\r\n",
    (True, True): b"Connection: keep-alive\r\n\r\n",
    (False, False): b"Connection: close\r\n\r\n",
    (False, True): b"Connection: close\r\n\r\n",
}
BODILESS = frozenset({NO_CONTENT, 304})
PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class ResponseWriter:
    """Writes the response to one request; returned by the handler, it is written whole."""

    __slots__ = (
        "_chunked",
        "_closing",
        "_head",
        "_request",
        "_timeout",
        "digest",
        "edit",
        "extra",
        "is_private",
        "keep_alive",
        "request_id",
        "sent",
        "started",
    )

    def __init__(self, request: Request, *, timeout: float, closing: Callable[[], bool]) -> None:
        """Answer `request`; `closing` says, when the head is made, if the connection ends with it.

        `timeout` is how many seconds the caller may take to read what is on its way.
        """
        self._request = request
        self._timeout = timeout
        self._chunked = False
        self._head = b""
        self.extra: Sequence[Header] = ()
        """Headers of every answer to this request, a refusal too."""
        self.edit: Callable[[Sequence[Header]], Sequence[Header]] | None = None
        """What is done to the headers of the answer, if anything."""
        self.request_id = b""
        """What `X-Request-Id` says, unless the API says something else."""
        self.is_private = False
        """Whether no shared cache may store it, unless the API allows that."""
        self._closing = closing
        self.keep_alive = request.keep_alive
        self.started = False
        """Whether the caller may have seen a byte of it."""
        self.sent = 0
        """Bytes of the body written."""
        self.digest: Digest | None = None
        """Hashes them as they go, if somebody wants that."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The way to the caller, while there is one."""
        return self._request.transport

    def when_followed(self, hear: Callable[[bool], None]) -> None:
        """Have told what the connection brings after this answer (see `ClientConnection`)."""
        self._request.protocol.when_followed(hear)

    def begin(self, *, status: int, reason: bytes, headers: Sequence[Header]) -> None:
        """Compose the head; it leaves together with the first bytes of the body."""
        self.begin_with(passed_back(headers), status=status, reason=reason)

    def begin_with(self, passed: ResponseHeaders, *, status: int, reason: bytes) -> None:
        """Compose it of header lines that are written already."""
        request = self._request
        section, has_length = passed.section, passed.has_length
        if self.edit is not None:
            section = section_of(self.edit(headers_in(section)))
        if self.extra:
            section += section_of(self.extra)
        if self.is_private:
            section = made_private(section, passed.cache_control, is_targeted=passed.is_targeted)
        if self.request_id and not passed.request_id:
            if passed.request_id is not None:  # an empty one would hide ours
                section = EMPTY_ID_LINE.sub(b"", section)
            section += b"\r\nX-Request-Id: " + self.request_id
        if status == NO_CONTENT and has_length:  # there is none (RFC 9110, 8.6)
            section = LENGTH_LINE.sub(b"", section)
        is_old = request.version < HTTP_1_1
        if not has_length and request.method != "HEAD" and status not in BODILESS:
            if is_old:
                self.keep_alive = False  # the end of the connection is the end of the body
            else:
                self._chunked = True
                section += b"\r\nTransfer-Encoding: chunked"
        # If a body is unfinished the caller should know (RFC 9110, 10.1.1): it may wait for a
        # go-ahead that will not come.
        if self._closing() or request.is_unfinished:
            self.keep_alive = False
        self._head = b"HTTP/1.1 %d %b%b\r\n%b" % (
            status, reason, section, CONNECTION[self.keep_alive, is_old],
        )  # fmt: skip

    async def write(self, data: bytes) -> None:
        """Pass on bytes of the body and wait while the caller does not take them."""
        if self._put(self._framed(data)):
            await self._drain()

    def _framed(self, data: bytes) -> bytes:
        """Count bytes of the body, and give them as they are sent."""
        self.sent += len(data)
        if self.digest is not None:
            self.digest.update(data)
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    async def flush_head(self) -> None:
        """Send the head before there is a body: the caller may be waiting for it."""
        if self._head and self._put(b""):
            await self._drain()

    async def end(self, data: bytes = b"") -> None:
        """Finish the body; `data` is its last bytes, if there are any left."""
        if data:
            data = self._framed(data)
        if self._put(data + LAST_CHUNK if self._chunked else data):
            await self._drain()

    async def send_problem(self, problem: Problem) -> None:
        """Send a problem document as the whole response."""
        status = problem.kind.status
        length = (b"Content-Length", b"%d" % len(problem.body))
        self.begin(status=status, reason=PHRASES[status], headers=(*problem.headers, length))
        await self.end(b"" if self._request.method == "HEAD" else problem.body)

    def send_continue(self) -> None:
        """Send 100 Continue, so that the client sends its body (RFC 9110, 10.1.1)."""
        transport = self._request.transport
        if transport is not None and not self.started:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def abort(self) -> None:
        """Break the connection so that nobody takes what was sent for the whole."""
        self.keep_alive = False
        transport = self._request.transport
        if transport is not None:
            reset_connection(transport)

    def _put(self, data: bytes) -> bool:
        """Write, behind the head if that is still here; say if the caller is slow to take it."""
        protocol = self._request.protocol
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise CallerGoneError("the caller closed the connection")
        if self._head:
            data = self._head + data
            self._head = b""
        if not data:
            return False
        self.started = True
        transport.write(data)
        return protocol.writing_paused

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._request.protocol.drain()
        except TimeoutError:
            raise CallerTimeoutError("the caller stopped reading") from None
        except ConnectionError as exc:
            raise CallerGoneError("the caller closed the connection") from exc


PLAIN = b"text/plain; charset=utf-8"
JSON = b"application/json"
WRITE_SECONDS = 10.0
OK, ACCEPTED, BAD_REQUEST, FORBIDDEN, NOT_FOUND, NOT_ALLOWED = 200, 202, 400, 403, 404, 405
CRASHED, UNAVAILABLE = 500, 503


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered; `allow` lists the methods where another one was used."""

    status: int
    content_type: bytes
    body: bytes
    allow: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


def text_page(status: int, text: str, *, allow: bytes = b"") -> Page:
    """Say something to people, or to a probe."""
    return Page(status=status, content_type=PLAIN, body=text.encode() + b"\n", allow=allow)


def json_page(status: int, members: Mapping[str, object], *, allow: bytes = b"") -> Page:
    """Say something to a program."""
    body = msgspec.json.encode(members)
    return Page(status=status, content_type=JSON, body=body, allow=allow)


async def send_page(request: Request, page: Page, *, closing: bool = False) -> ResponseWriter:
    """Answer with a page; `closing` ends the connection with it."""
    answer = ResponseWriter(request, timeout=WRITE_SECONDS, closing=lambda: closing)
    headers = [
        (b"Content-Type", page.content_type),
        (b"Content-Length", b"%d" % len(page.body)),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
        *page.headers,
    ]
    if page.allow:
        headers.append((b"Allow", page.allow))
    answer.begin(status=page.status, reason=PHRASES[page.status], headers=headers)
    if request.method == "HEAD":
        await answer.end()
    else:
        await answer.write(page.body)
    return answer
