"""The bytes of a connection become requests, one after the other.

The next head is read when the body before it is whole, so that no byte can belong to two requests.
A head counts against its limits while it comes, and what no request has taken yet is kept as it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from icr_proxy.errors import BadRequestError
from icr_proxy.http1.repeating import Repeating, Sections
from icr_proxy.http1.request_head import END, Head, HeadRules, check_begun, read_head
from icr_proxy.http1.request_parser import Chunked, Sized

if TYPE_CHECKING:
    from icr_proxy.http1.request_parser import Framing

EMPTY_LINES = re.compile(
    rb"(?:\r\n)+"
)  # before a request line they are passed over (RFC 9112, 2.2)


class Intake:
    """What has arrived on one connection."""

    __slots__ = ("_looked", "_repeating", "_rules", "framing", "held", "is_deaf")

    def __init__(self, rules: HeadRules, sections: Sections | None = None) -> None:
        """Read by `rules`; header lines that come again are shared with who has the `sections`."""
        self._rules = rules
        self.held = b""
        """Bytes that no request has taken yet; of a head that is not whole, all of it."""
        self._looked = 0
        """How many of them are known to hold no whole head."""
        self.framing: Framing | None = None
        """How the body ends that is being read, if one is: the next bytes belong to it."""
        self._repeating = Repeating(sections if sections is not None else Sections())
        self.is_deaf = False
        """Whether nothing that comes now can be a request (RFC 9112, 9.6)."""

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        self.held = self.held + data if self.held else data

    def drop(self) -> None:
        """Take nothing for a request any more."""
        self.held, self.framing, self.is_deaf = b"", None, True
        self.forget()

    def forget(self) -> None:
        """Forget what was read of header lines."""
        self._repeating.forget()

    def next_head(self) -> Head | None:
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
        head = read_head(data, self._rules)
        self._repeating.keep(data, head)
        return self._take(head, end)

    def _take(self, head: Head, end: int) -> Head:
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
            self.drop()
            raise
        self.held = after or b""
        if after is not None:
            self.framing = None
        return piece, after is not None
