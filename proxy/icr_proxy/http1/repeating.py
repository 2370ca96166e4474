"""Header lines that a connection repeats, byte for byte, are read only once.

Most connections send the same ones with every request. What they say depends on nothing else than
the version, if the request line is an everyday one: of that, everything is looked at each time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from icr_proxy.http1.request_head import Head, check_sizes

if TYPE_CHECKING:
    from icr_proxy.http1.request_head import HeadRules, Section

WRITTEN_MOST = 4096  # bytes of header lines that are kept on each connection
# llhttp knows more methods, some of them for other protocols only, and reads other forms of
# targets; those are for it alone. Of these, the tests say that it lets all pass.
EVERYDAY_LINE = re.compile(rb"([A-Z]+) (/[!\"$-~]*) HTTP/1\.([01])\r\n")
EVERYDAY_WORDS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
EVERYDAY = {word.encode("ascii"): word for word in EVERYDAY_WORDS}


class Sections:
    """Header lines that connections of one listener repeat, each kept once for all of them.

    With a thousand connections that send the same, what belongs to each would not stay in the
    processor's cache. They go with the last connection that repeats them.
    """

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[bool, bytes], Section] = WeakValueDictionary()

    def __len__(self) -> int:
        """Count them."""
        return len(self._known)

    def shared(self, section: Section) -> Section:
        """Give the one that all use whose lines are these, byte for byte."""
        return self._known.setdefault((section.is_old, section.written), section)


class Repeating:
    """The last header lines of a connection, and what they say; they go with it."""

    __slots__ = ("_is_shared", "_section", "_sections")

    def __init__(self, sections: Sections) -> None:
        """Share with other connections what comes a second time."""
        self._sections = sections
        self._section: Section | None = None
        self._is_shared = False

    def read(self, data: bytes, rules: HeadRules) -> tuple[Head, int] | None:
        """Give the head at the beginning, and where it ends, if it ends in the same lines.

        Raises:
            UriTooLongError: its target is too long.
        """
        section = self._section
        if section is None:
            return None
        line = EVERYDAY_LINE.match(data)
        if line is None or not data.startswith(section.written, line.end()):
            return None
        word, target, version = line.groups()
        method = EVERYDAY.get(word)
        if method is None or section.is_old is not (version == b"0"):
            return None
        if len(target) > rules.uri:
            check_sizes(len(target), 0, rules)
        if not self._is_shared:
            self._section = section = self._sections.shared(section)
            self._is_shared = True
        return Head(method, target.decode("ascii"), section), line.end() + len(section.written)

    def keep(self, data: bytes, head: Head) -> None:
        """Remember the lines of `data`, a whole head, unless another line could change them."""
        if head.target[0] != "/" or head.method not in EVERYDAY_WORDS:
            return
        written = data[data.index(b"\r\n") + 2 :]
        if len(written) > WRITTEN_MOST:
            self.forget()
        else:
            head.section.written = written
            self._section, self._is_shared = head.section, False

    def forget(self) -> None:
        """Remember nothing."""
        self._section, self._is_shared = None, False
