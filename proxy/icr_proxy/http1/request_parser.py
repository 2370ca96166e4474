"""An incremental parser: the bytes of a connection become requests, with the end of each body.

The next head is read when the body before it is whole, so that no byte can belong to two requests.
A head counts against its limits while it comes, and what no request has taken yet is kept as it is.
"""

from __future__ import annotations

import re
from typing import Protocol

from icr_proxy.errors import BadRequestError
from icr_proxy.http1.request_head import (
    CONTROL,
    END,
    TOKEN,
    HeaderCache,
    HeadRules,
    LastHeadCache,
    RequestHead,
    check_begun,
    read_head,
)

# RFC 9112, 7.1; of extensions, nothing has a meaning to us. White space around them, which nobody
# sends, is read in different ways.
SIZE_LINE = re.compile(
    rb'([0-9A-Fa-f]{1,15})(?:;%b+(?:=(?:%b+|"[\t !#-\x5b\x5d-~]*"))?)*' % (TOKEN, TOKEN)
)
BEGUN_SIZE = re.compile(rb"[0-9A-Fa-f]{0,15}(?:;[^\r\n]*)?\r?")
LINE_MOST = 1024  # bytes of a size with its extensions, which somebody could send without end
TRAILER = re.compile(rb"(%b+):(.*)" % TOKEN, re.DOTALL)
BEGUN_TRAILER = re.compile(rb"[^\r\n]*\r?")
# RFC 9110, 6.5.1: they would frame or route a message that is already under way.
FORBIDDEN_TRAILERS = frozenset({b"content-length", b"host", b"transfer-encoding"})


class Framing(Protocol):
    """A body in the making."""

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Give what belongs to the body, and what follows it once it is whole.

        Raises:
            BadRequestError: nobody could say where it ends.
        """


class Sized:
    """A body whose length is known."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Count."""
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return data, None
        return data[:left], data[left:]


class Chunked:
    """A body in chunks; its trailers are looked at and dropped."""

    __slots__ = ("_in_trailers", "_left", "_rest", "_trailers_left")

    def __init__(self, *, trailers: int) -> None:
        """Accept `trailers` bytes of trailers at most."""
        self._rest = b""
        self._left = 0
        """Bytes of the current chunk, its CR LF included."""
        self._in_trailers = False
        self._trailers_left = trailers

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take the chunks apart."""
        data = self._rest + data if self._rest else data
        pieces: list[bytes] = []
        at, after = 0, None
        while after is None:
            if self._left:
                at, is_whole = self._take(data, at, pieces)
                if not is_whole:
                    break
            end = data.find(b"\r\n", at)
            if end < 0:
                self._check_begun(data[at:])
                break
            line, at = data[at:end], end + 2
            if not self._in_trailers:
                self._begin_chunk(line)
            elif line:
                self._pass_over(line)
            else:
                after = data[at:]
        self._rest = data[at:] if after is None else b""
        return b"".join(pieces), after

    def _take(self, data: bytes, at: int, pieces: list[bytes]) -> tuple[int, bool]:
        """Take what is there of a chunk; say where it leads, and whether the chunk is over."""
        if self._left > 2:  # noqa: PLR2004  # len("\r\n")
            piece = data[at : at + self._left - 2]
            pieces.append(piece)
            self._left -= len(piece)
            at += len(piece)
        ending = data[at : at + 2]
        if not b"\r\n".startswith(ending):
            raise BadRequestError("a chunk of the request body is longer than it says")
        if self._left > 2 or len(ending) < 2:  # noqa: PLR2004
            return at, False
        self._left = 0
        return at + 2, True

    def _begin_chunk(self, line: bytes) -> None:
        found = SIZE_LINE.fullmatch(line)
        if found is None or len(line) > LINE_MOST:
            raise BadRequestError("a chunk of the request body has no size that can be")
        size = int(found[1], 16)
        self._in_trailers = size == 0
        self._left = size + 2 if size else 0

    def _pass_over(self, line: bytes) -> None:
        self._trailers_left -= len(line) + 2
        found = TRAILER.fullmatch(line)
        if (
            found is None
            or self._trailers_left < 0
            or found[1].lower() in FORBIDDEN_TRAILERS
            or CONTROL.search(found[2]) is not None
        ):
            raise BadRequestError("the trailers of the request are malformed, or too many")

    def _check_begun(self, line: bytes) -> None:
        begun, longest = BEGUN_SIZE, LINE_MOST
        if self._in_trailers:
            begun, longest = BEGUN_TRAILER, self._trailers_left
        if len(line) > longest or begun.fullmatch(line) is None:
            raise BadRequestError("a chunk of the request body has no size that can be")


EMPTY_LINES = re.compile(
    rb"(?:\r\n)+"
)  # before a request line they are passed over (RFC 9112, 2.2)


class RequestParser:
    """An incremental parser of the requests of one connection."""

    __slots__ = ("_looked", "_repeating", "_rules", "_sections", "framing", "held", "is_deaf")

    def __init__(self, rules: HeadRules, sections: HeaderCache | None = None) -> None:
        """Read by `rules`; header lines that come again are shared with who has the `sections`."""
        self._rules = rules
        self.held = b""
        """Bytes that no request has taken yet; of a head that is not whole, all of it."""
        self._looked = 0
        """How many of them are known to hold no whole head."""
        self.framing: Framing | None = None
        """How the body ends that is being read, if one is: the next bytes belong to it."""
        self._sections = sections if sections is not None else HeaderCache()
        self._repeating = LastHeadCache(self._sections)
        self.is_deaf = False
        """Whether nothing that comes now can be a request (RFC 9112, 9.6)."""

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        self.held = self.held + data if self.held else data

    def discard(self) -> None:
        """Take nothing for a request any more."""
        self.held, self.framing, self.is_deaf = b"", None, True
        self.clear()

    def clear(self) -> None:
        """Forget what was read of header lines."""
        self._repeating.clear()

    def next_head(self) -> RequestHead | None:
        """Give the head of the next request, once it is whole.

        Raises:
            RefusedError: it is none, or is too long; nothing after it can be understood.
        """
        held = self.held
        if held.startswith(b"\r\n"):
            held = self.held = EMPTY_LINES.sub(b"", held, count=1)
        again = self._repeating.read(held, self._rules)
        if again is not None:
            return self._take(*again)
        end = held.find(END, max(0, self._looked - len(END) + 1))
        if end < 0:
            if len(held) > 1:  # a CR alone may become an empty line
                check_begun(held, self._rules, since=self._looked)
            self._looked = len(held)
            return None
        end += len(END)
        data = held[:end]
        head = read_head(data, self._rules, self._sections.lines)
        self._repeating.store(data, head)
        return self._take(head, end)

    def _take(self, head: RequestHead, end: int) -> RequestHead:
        held = self.held
        self._looked, self.held = 0, held[end:] if len(held) > end else b""
        self.is_deaf = head.is_last
        length = head.section.length
        if length is None:
            self.framing = Chunked(trailers=self._rules.headers)
        elif length:
            self.framing = Sized(length)
        return head

    def next_piece(self) -> tuple[bytes, bool]:
        """Give what has arrived of the body, and whether it is whole now.

        Raises:
            BadRequestError: it is malformed.
        """
        if self.framing is None:
            raise RuntimeError("no body is being read")
        try:
            piece, after = self.framing.feed(self.held)
        except BadRequestError:
            self.discard()
            raise
        self.held = after or b""
        if after is not None:
            self.framing = None
        return piece, after is not None
