"""Where a request's body ends. What goes on to the API is framed anew, whatever it was here."""

from __future__ import annotations

import re
from typing import Protocol

from icr_proxy.errors import BadRequestError
from icr_proxy.http1.request_head import CONTROL, TOKEN

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
