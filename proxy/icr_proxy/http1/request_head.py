"""The head of a request, read from its bytes; what two servers might read differently is refused.

llhttp (httptools) reads it without any of its leniences. What llhttp lets pass all the same is
checked here first: other protocols (`RTSP/1.1`), several spaces in the request line, fragments,
lengths that fit into no 63 bits, `Transfer-Encoding` in HTTP/1.0. Each request gets a parser of its
own, so that nothing of one request is left in it for the next.

Most heads are plain: a usual request line, and header lines that many requests have in common. A
plain head is read without llhttp, line by line, and each line is read once (`LineCache`). Nothing
passes this way that llhttp would refuse or read differently: whatever is not plain goes to llhttp,
and tests compare the two. A connection that repeats a whole head gets the block of the head before.
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
from icr_proxy.http1.headers import REQUEST_ID, TRACEPARENT, connection_options, fields_of
from icr_proxy.redaction import CREDENTIAL, SENSITIVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.errors import ProxyError
    from icr_proxy.http1.headers import Fields, Header

END = b"\r\n\r\n"
MAX_LINES = 128  # header lines in a request
NO_OPTIONS: frozenset[bytes] = frozenset()
MAX_LENGTH = 2**63 - 1  # what a signed 64-bit integer holds: as far as servers agree
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
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class HeadRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a head may be: sizes in bytes, and the header whose mistakes get a name of their own."""

    uri: int
    headers: int
    tag: str


class HeaderLine(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One header line; what follows from it alone."""

    name: bytes
    """The name in lower case."""
    header: Header
    """Name and value as received."""
    values: tuple[bytes]
    """The value, as `Fields` hold it."""
    written: bytes
    """The line as it is sent on, with its end."""


def header_line(name: bytes, value: bytes) -> HeaderLine:
    """Make the line of a name and a value."""
    return HeaderLine(name.lower(), (name, value), (value,), b"%b: %b\r\n" % (name, value))


class HeaderBlock:
    """The parsed header lines of a request, whatever its request line asks for."""

    __slots__ = (
        "__weakref__",
        "announced",
        "derived",
        "fields",
        "is_last",
        "is_old",
        "length",
        "lines",
        "options",
        "written",
    )

    def __init__(self, lines: Sequence[HeaderLine] = (), *, is_old: bool = False) -> None:
        self.lines = lines
        fields: Fields = {line.name: line.values for line in lines}
        if len(fields) != len(lines):  # some name comes more than once
            fields = fields_of([line.header for line in lines])
        self.fields = fields
        self.options = connection_options(fields) if b"connection" in fields else NO_OPTIONS
        """What `Connection` says."""
        self.is_old = is_old
        """Whether it is HTTP/1.0."""
        # RFC 9112, 9.3
        self.is_last = b"close" in self.options or (is_old and b"keep-alive" not in self.options)
        """Whether it ends the connection."""
        self.length: int | None = 0
        """Bytes of the body, or `None` if it is chunked."""
        self.announced: int | None = None
        """What its `Content-Length` says, if it has one."""
        self.derived: Any = None
        """What the rules of the listener derived from the lines; kept as long as the block."""
        self.written = b""
        """The lines as received, with the empty line after them, if they are remembered."""

    @property
    def headers(self) -> tuple[Header, ...]:
        """The lines as received."""
        return tuple([line.header for line in self.lines])

    @property
    def expects(self) -> bool:
        """Whether it has an `Expect`."""
        return b"expect" in self.fields

    def check(self) -> None:
        """Refuse what cannot be a request; decide how the body ends (RFC 9112, 6.3)."""
        fields = self.fields
        hosts = fields.get(b"host", ())
        if len(hosts) > 1 or not (hosts or self.is_old):
            raise BadRequestError("send exactly one Host header")
        if hosts and HOST.fullmatch(hosts[0]) is None:
            raise BadRequestError("the Host header is no name or address")
        if len(self.lines) > MAX_LINES:
            raise HeadersTooLargeError("the request has more headers than this proxy accepts")
        codings, lengths = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        if codings is not None:
            if lengths is not None or self.is_old:
                raise BadRequestError("the request is framed in two ways")
            if b",".join(codings).lower() != b"chunked":
                raise NotImplementedMethodError(
                    "transfer codings other than chunked are not forwarded"
                )
            self.length = None
        elif lengths is not None:
            self.length = self.announced = _read_length(lengths)


def block_of(headers: Iterable[Header]) -> HeaderBlock:
    """Make a block of headers that came in no request of HTTP/1.0."""
    return HeaderBlock([header_line(name, value) for name, value in headers])


class RequestHead:
    """What a head says."""

    __slots__ = ("is_last", "method", "section", "target")

    def __init__(self, method: str, target: str, section: HeaderBlock) -> None:
        self.method = method
        self.target = target
        self.section = section
        self.is_last = section.is_last or method == "CONNECT"
        """Whether the connection ends with it: what follows a CONNECT may be anything."""


def read_head(data: bytes, rules: HeadRules, cache: LineCache | None = None) -> RequestHead:
    """Read a head, which ends with an empty line; without a `cache`, llhttp reads all of it.

    Raises:
        RefusedError: it is not one, or is too long; which of these, its class says.
    """
    line = REQUEST_LINE.match(data)
    line_end = line.end() if line is not None else data.index(b"\r\n") + 2
    target = len(line[2]) if line is not None else line_end - LINE_OVERHEAD
    check_sizes(target, len(data) - line_end - 2, rules)
    if line is None:
        raise BadRequestError("the request line is not one of HTTP/1.1")
    method, path, version = line.groups()
    is_old, section = version == b"0", None
    if cache is not None and method in EVERYDAY and path.startswith(b"/"):
        section = cache.read(data[line_end : -len(END)], is_old=is_old)
    if section is None:
        section = HeaderBlock(_parse(data, rules), is_old=is_old)
    section.check()
    return RequestHead(method.decode("ascii"), path.decode("ascii"), section)


class LineCollector:
    """Collects the header lines that llhttp finds."""

    def __init__(self) -> None:
        self.lines: list[HeaderLine] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a line (called by the parser, which leaves white space at its end)."""
        self.lines.append(header_line(name, value.rstrip(b" \t")))


def _parse(data: bytes, rules: HeadRules) -> list[HeaderLine]:
    """Have llhttp parse a head."""
    collector = LineCollector()
    try:
        httptools.HttpRequestParser(collector).feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # whoever wants to leave HTTP is told so like any other
    except httptools.HttpParserInvalidMethodError:
        raise NotImplementedMethodError("this proxy does not know that method") from None
    except httptools.HttpParserError:
        raise _mistake(data, rules) from None
    return collector.lines


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


def _read_length(written: Sequence[bytes]) -> int:
    digits = written[0].lstrip(b"0") or written[0][-1:]
    if len(written) > 1 or not digits.isdigit() or len(digits) > len(str(MAX_LENGTH)):
        raise BadRequestError("the Content-Length is not one number that can be")
    length = int(digits)
    if length > MAX_LENGTH:
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


MAX_WRITTEN = 4096  # bytes of header lines that are kept on each connection
# llhttp knows more methods, some of them for other protocols only, and reads other forms of
# targets; those are for it alone. Of these, the tests say that it lets all pass.
EVERYDAY_LINE = re.compile(rb"([A-Z]+) (/[!\"$-~]*) HTTP/1\.([01])\r\n")
EVERYDAY_WORDS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
EVERYDAY = {word.encode("ascii"): word for word in EVERYDAY_WORDS}

MAX_CACHED_LINES = 512  # of one listener; a client sends about ten
MAX_CACHED_LINE = 256  # bytes
# RFC 9112, 5: no white space before the colon, no controls in the value (RFC 9110, 5.5).
PLAIN_LINE = re.compile(rb"(%b+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)" % TOKEN)
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
PLAIN_LENGTH = re.compile(rb"[0-9]{1,18}")
# These are new in each request, or a secret.
NOT_CACHED = frozenset(
    {
        REQUEST_ID,
        TRACEPARENT,
        b"tracestate",
        b"baggage",
        b"idempotency-key",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
    }
)


class UnusualLineError(Exception):
    """A header line that llhttp must judge."""


class LineCache(dict[bytes, HeaderLine]):
    """Header lines by their bytes, read once for all connections of a listener.

    A line is a value that never changes, and the same bytes always give the same line: what one
    client sent tells nothing to another and changes nothing about its request. Secrets and what is
    new in each request are read each time.
    """

    __slots__ = ()

    def read(self, block: bytes, *, is_old: bool) -> HeaderBlock | None:
        """Read the lines of a block if all of them are plain."""
        written = block.split(b"\r\n")
        if len(written) > MAX_LINES:
            return None
        try:
            section = HeaderBlock(list(map(self.__getitem__, written)), is_old=is_old)
        except UnusualLineError:
            return None
        return section if len(section.fields.get(b"content-length", ())) < 2 else None  # noqa: PLR2004

    def __missing__(self, line: bytes) -> HeaderLine:
        found = PLAIN_LINE.fullmatch(line)
        if found is None:
            raise UnusualLineError
        read = header_line(found[1], found[2].rstrip(b" \t"))
        name = read.name
        if name in FRAMING and not (
            name == b"content-length" and PLAIN_LENGTH.fullmatch(read.values[0])
        ):
            raise UnusualLineError
        if name not in NOT_CACHED and len(line) <= MAX_CACHED_LINE and not _looks_secret(read):
            if len(self) >= MAX_CACHED_LINES:
                self.clear()
            self[line] = read
        return read


def _looks_secret(line: HeaderLine) -> bool:
    return bool(
        SENSITIVE.search(line.name.decode("ascii"))
        or CREDENTIAL.search(line.values[0].decode("latin-1"))
    )


class HeaderCache:
    """What the connections of one listener have in common: header blocks, and single lines.

    With a thousand connections that repeat the same block, what belongs to each would not stay in
    the processor's cache. A block goes with the last connection that repeats it.
    """

    def __init__(self) -> None:
        self._blocks: WeakValueDictionary[tuple[bool, bytes], HeaderBlock] = WeakValueDictionary()
        self.lines = LineCache()

    def __len__(self) -> int:
        return len(self._blocks)

    def shared(self, section: HeaderBlock) -> HeaderBlock:
        """Give the block that all connections use whose lines are these, byte for byte."""
        return self._blocks.setdefault((section.is_old, section.written), section)


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
        if len(written) > MAX_WRITTEN:
            self.clear()
        else:
            head.section.written = written
            self._section, self._is_shared = head.section, False

    def clear(self) -> None:
        """Remember nothing."""
        self._section, self._is_shared = None, False
