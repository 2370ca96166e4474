"""A request as a handler gets it: what was received, byte for byte, and what follows as its body.

Nothing of aiohttp's own record of a request is made, such as its URL or its dictionary of headers:
what decides are the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.http import HttpVersion10, HttpVersion11

from icr_proxy.http1.request_head import Head, Section

if TYPE_CHECKING:
    import asyncio

    from aiohttp import HttpVersion, StreamReader

    from icr_proxy.errors import ProxyError
    from icr_proxy.server.callerconnection import CallerConnection


class Request:
    """One request of a caller."""

    __slots__ = (
        "body_exists",
        "broken",
        "content",
        "content_length",
        "expects",
        "keep_alive",
        "method",
        "notes",
        "protocol",
        "raw_headers",
        "raw_path",
        "version",
    )

    def __init__(
        self,
        head: Head,
        protocol: CallerConnection,
        content: StreamReader,
        broken: ProxyError | None = None,
    ) -> None:
        """Hand over what `head` says; `content` is its body, perhaps an empty one."""
        self.protocol = protocol
        self.broken = broken
        """What was wrong with it, if it could not be read."""
        self.method = head.method
        self.raw_path = head.target
        """The target as received."""
        section = head.section
        self.version: HttpVersion = HttpVersion10 if section.is_old else HttpVersion11
        self.raw_headers = section.headers
        """The header lines as received. A connection that repeats them gives the same object."""
        self.notes = section.notes
        """What others derived from the header lines, for as long as the connection repeats them."""
        self.keep_alive = not head.is_last
        self.content = content
        self.content_length = section.announced
        self.body_exists = section.length != 0
        self.expects = section.expects
        """Whether an answer is expected before the body is sent, in whatever words."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The way to the caller, while there is one."""
        return self.protocol.transport

    @property
    def secure(self) -> bool:
        """Whether it came over TLS."""
        return self.protocol.ssl_context is not None

    @property
    def is_unfinished(self) -> bool:
        """Whether some of its body has not arrived, or nobody can say where it ends."""
        content = self.content
        return self.body_exists and (not content.is_eof() or content.exception() is not None)

    def first(self, name: bytes) -> str:
        """Give the first value of a header, whose name is given in lower case, or nothing."""
        for key, value in self.raw_headers:
            if key.lower() == name:
                return value.decode("utf-8", "surrogateescape")
        return ""

    def _cancel(self, exc: BaseException) -> None:
        """Wake whoever reads the body, because there will be no more (called by aiohttp)."""
        self.content.set_exception(exc)


def unreadable(protocol: CallerConnection, content: StreamReader, error: ProxyError) -> Request:
    """Stand in for what was no request, so that it can be answered in its turn."""
    section = Section()
    section.is_old = section.is_last = True
    return Request(Head("UNKNOWN", "/", section), protocol, content, error)
