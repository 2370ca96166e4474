"""The head of a request, read from its bytes; what two servers might read differently is refused.

llhttp (httptools) reads it without any of its leniences. What it lets pass all the same is looked
at here first: other protocols (`RTSP/1.1`), several spaces in the request line, fragments, lengths
that fit into no 63 bits, `Transfer-Encoding` in HTTP/1.0. Each request gets a parser of its own, so
that nothing is left in it of the request before.

Most connections send the same ones with every request. What they say depends on nothing else than
the version, if the request line is an everyday one: of that, everything is looked at each time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import httptools
import msgspec

from icr_proxy.errors import (
    BadRequestError,
    HeadersTooLargeError,
    InstallationInvalidError,
    NotImplementedMethodError,
    UriTooLongError,
)

if TYPE_CHECKING:
    from icr_proxy.errors import ProxyError

END = b"\r\n\r\n"
LINES_MOST = 128  # header lines in a request
NOTES_MOST = 16  # on header lines; each reload brings three more
LONGEST_LENGTH = 2**63 - 1  # what a signed 64-bit integer holds: as far as servers agree
LINE_OVERHEAD = 64  # bytes of a request line besides its target: the longest method and version

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110, 5.6.2
# RFC 9112, 3. A target has no fragment (3.2); other characters that a URI must not hold are sent
# by old tools, read by all in the same way, and pass.
REQUEST_LINE = re.compile(rb"(%b+) ([!\"$-~]+) HTTP/1\.([01])\r\n" % TOKEN)
BEGUN_LINE = re.compile(rb"%b*(?: [!\"$-~]*(?: [HTP/.01\r]{0,9})?)?" % TOKEN)
# RFC 9112, 2.2: recipients do not agree on what a lone CR or LF is.
LONE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
# RFC 9110, 4.2.1: uri-host, and a port perhaps.
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
BLANK = (b" ", b"\t")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class HeadRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a head may be: sizes in bytes, and the header whose mistakes get a name of their own."""

    uri: int
    headers: int
    tag: str


class Derived(dict[Any, Any]):
    """A memo table of what was derived from a header block, by who derived it.

    A reload brings new ones who do, and lines may live on: so at some time all are forgotten.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        if len(self) >= NOTES_MOST:
            self.clear()
        super().__setitem__(key, value)


class HeaderBlock:
    """The parsed header lines of a request, whatever its request line asks for."""

    __slots__ = (
        "__weakref__",
        "_codings",
        "_hosts",
        "_lengths",
        "_lines",
        "_options",
        "announced",
        "derived",
        "expects",
        "headers",
        "is_last",
        "is_old",
        "length",
        "written",
    )

    def __init__(self) -> None:
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.derived: dict[Any, Any] = Derived()
        """Room for what others derive from the header lines."""
        self.written = b""
        """The lines themselves, with the empty line after them, if they are remembered."""
        self.is_old = False
        """Whether it is HTTP/1.0."""
        self.is_last = False
        """Whether it ends the connection."""
        self.length: int | None = 0
        """Bytes of the body, or `None` if it is chunked."""
        self.announced: int | None = None
        """What its `Content-Length` says, if it has one."""
        self.expects = False
        """Whether it has an `Expect`."""
        self._lines: list[tuple[bytes, bytes]] = []
        self._codings: list[bytes] = []
        self._lengths: list[bytes] = []
        self._options: list[bytes] = []
        self._hosts: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line (called by the parser, which leaves white space at its end)."""
        if value.endswith(BLANK):
            value = value.rstrip(b" \t")
        self._lines.append((name, value))
        # Few names have these lengths; the others need not be looked at.
        match len(name):
            case 4 if name.lower() == b"host":
                self._hosts.append(value)
            case 6 if name.lower() == b"expect":
                self.expects = True
            case 10 if name.lower() == b"connection":
                self._options += (option.strip() for option in value.lower().split(b","))
            case 14 if name.lower() == b"content-length":
                self._lengths.append(value)
            case 17 if name.lower() == b"transfer-encoding":
                self._codings.append(value)

    def settle(self, *, is_old: bool) -> None:
        """Decide how the body ends (RFC 9112, 6.3), and whether the request can be one."""
        self.is_old = is_old
        if len(self._hosts) > 1 or not (self._hosts or self.is_old):
            raise BadRequestError("send exactly one Host header")
        if self._hosts and HOST.fullmatch(self._hosts[0]) is None:
            raise BadRequestError("the Host header is no name or address")
        # RFC 9112, 9.3
        self.is_last = b"close" in self._options or (
            self.is_old and b"keep-alive" not in self._options
        )
        if len(self._lines) > LINES_MOST:
            raise HeadersTooLargeError("the request has more headers than this proxy accepts")
        if self._codings:
            if self._lengths or self.is_old:
                raise BadRequestError("the request is framed in two ways")
            self._check_codings()
            self.length = None
        elif self._lengths:
            self.length = self.announced = _read_length(self._lengths)
        self.headers = tuple(self._lines)

    def _check_codings(self) -> None:
        codings = b",".join(self._codings).lower().split(b",")
        if codings != [b"chunked"]:
            raise NotImplementedMethodError("transfer codings other than chunked are not forwarded")


class RequestHead:
    """What a head says."""

    __slots__ = ("is_last", "method", "section", "target")

    def __init__(self, method: str, target: str, section: HeaderBlock) -> None:
        self.method = method
        self.target = target
        self.section = section
        self.is_last = section.is_last or method == "CONNECT"
        """Whether the connection ends with it: what follows a CONNECT may be anything."""


def read_head(data: bytes, rules: HeadRules) -> RequestHead:
    """Read a head, which ends with an empty line.

    Raises:
        RefusedError: it is not one, or is too long; which of these, its class says.
    """
    line = REQUEST_LINE.match(data)
    line_end = line.end() if line is not None else data.index(b"\r\n") + 2
    target = len(line[2]) if line is not None else line_end - LINE_OVERHEAD
    check_sizes(target, len(data) - line_end - 2, rules)
    if line is None:
        raise BadRequestError("the request line is not one of HTTP/1.1")
    section = HeaderBlock()
    try:
        httptools.HttpRequestParser(section).feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # whoever wants to leave HTTP is told so like any other
    except httptools.HttpParserInvalidMethodError:
        raise NotImplementedMethodError("this proxy does not know that method") from None
    except httptools.HttpParserError:
        raise _mistake(data, rules) from None
    section.settle(is_old=line[3] == b"0")
    return RequestHead(line[1].decode("ascii"), line[2].decode("ascii"), section)


def check_begun(data: bytes, rules: HeadRules, *, since: int = 0) -> None:
    """Refuse the beginning of a head that cannot become one; up to `since` it was looked at.

    Raises:
        RefusedError: it is too long already, or is something else, such as TLS.
    """
    line_end = data.find(b"\r\n") + 2
    line = REQUEST_LINE.match(data)
    if line is not None:
        check_sizes(len(line[2]), len(data) - line_end, rules)
    else:
        check_sizes(len(data) - LINE_OVERHEAD, 0, rules)
        if BEGUN_LINE.fullmatch(data) is None:
            raise BadRequestError("the request line is not one of HTTP/1.1")
    if LONE.search(data, max(0, since - 1)) is not None:
        raise BadRequestError("a line does not end with CR LF")


def _read_length(written: list[bytes]) -> int:
    digits = written[0].lstrip(b"0") or written[0][-1:]
    if len(written) > 1 or not digits.isdigit() or len(digits) > len(str(LONGEST_LENGTH)):
        raise BadRequestError("the Content-Length is not one number that can be")
    length = int(digits)
    if length > LONGEST_LENGTH:
        raise BadRequestError("the Content-Length is not one number that can be")
    return length


def check_sizes(target: int, headers: int, rules: HeadRules) -> None:
    """Refuse what is longer than it may be.

    Raises:
        RefusedError: it is; its class says what.
    """
    if target > rules.uri:
        raise UriTooLongError("the request target is longer than this proxy accepts")
    if headers > rules.headers:
        raise HeadersTooLargeError("the headers are longer than this proxy accepts")


def _mistake(data: bytes, rules: HeadRules) -> ProxyError:
    """Say what was wrong, without repeating any of it."""
    tag = rules.tag.lower().encode("ascii")
    for line in data.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == tag and CONTROL.search(value) is not None:
            return InstallationInvalidError("the installation header holds characters it must not")
    return BadRequestError("the request is not valid HTTP/1.1")


WRITTEN_MOST = 4096  # bytes of header lines that are kept on each connection
# llhttp knows more methods, some of them for other protocols only, and reads other forms of
# targets; those are for it alone. Of these, the tests say that it lets all pass.
EVERYDAY_LINE = re.compile(rb"([A-Z]+) (/[!\"$-~]*) HTTP/1\.([01])\r\n")
EVERYDAY_WORDS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
EVERYDAY = {word.encode("ascii"): word for word in EVERYDAY_WORDS}


class HeaderCache:
    """A cache of the header blocks that connections of one listener repeat, kept once for all.

    With a thousand connections that send the same, what belongs to each would not stay in the
    processor's cache. They go with the last connection that repeats them.
    """

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[bool, bytes], HeaderBlock] = WeakValueDictionary()

    def __len__(self) -> int:
        """Count them."""
        return len(self._known)

    def shared(self, section: HeaderBlock) -> HeaderBlock:
        """Give the one that all use whose lines are these, byte for byte."""
        return self._known.setdefault((section.is_old, section.written), section)


class LastHeadCache:
    """A cache of the last header block of one connection; it goes with it."""

    __slots__ = ("_is_shared", "_section", "_sections")

    def __init__(self, sections: HeaderCache) -> None:
        """Share with other connections what comes a second time."""
        self._sections = sections
        self._section: HeaderBlock | None = None
        self._is_shared = False

    def read(self, data: bytes, rules: HeadRules) -> tuple[RequestHead, int] | None:
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
        return RequestHead(method, target.decode("ascii"), section), line.end() + len(
            section.written
        )

    def store(self, data: bytes, head: RequestHead) -> None:
        """Remember the lines of `data`, a whole head, unless another line could change them."""
        if head.target[0] != "/" or head.method not in EVERYDAY_WORDS:
            return
        written = data[data.index(b"\r\n") + 2 :]
        if len(written) > WRITTEN_MOST:
            self.clear()
        else:
            head.section.written = written
            self._section, self._is_shared = head.section, False

    def clear(self) -> None:
        """Remember nothing."""
        self._section, self._is_shared = None, False
