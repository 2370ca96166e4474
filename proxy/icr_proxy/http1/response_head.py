"""The head of a response: whether it may be passed on, and which of its lines are.

Lines are kept as they were written, each behind its CR LF: most answers lose one or two of them and
are passed on otherwise as they came.

llhttp takes more than that: other protocols, versions and codings, statuses that are none. What it
took ends every line with CR LF and folds none, so the lines can be read as they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from icr_proxy.http1.cache_control import CACHE_CONTROL, TARGETED
from icr_proxy.http1.headers import (
    HOP_BY_HOP,
    PROXY_ERROR,
    REQUEST_ID,
    connection_options,
    fields_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.http1.headers import Header

DROPPED_FROM_ANSWERS = HOP_BY_HOP | {PROXY_ERROR}
CONNECTION = b"connection"
CONTENT_LENGTH = b"content-length"
TRANSFER_ENCODING = b"transfer-encoding"
ABOUT_CONNECTION = frozenset({b"keep-alive", b"close", b""})
"""What `Connection` says most of the time, which names no header that is there."""


# In lines that each come behind their CR LF, all in lower case: it takes half the time so.
NOTED = frozenset({CONTENT_LENGTH, CACHE_CONTROL, REQUEST_ID, *TARGETED})
NOTABLE_IN_ANSWERS = re.compile(
    rb"\r\n(%b)[ \t]*:[ \t]*([^\r]*)" % b"|".join(sorted(DROPPED_FROM_ANSWERS | NOTED))
)
EMPTY_ID_LINE = re.compile(rb"\r\n%b[ \t]*:[ \t]*(?=\r|\Z)" % REQUEST_ID, re.IGNORECASE)
LENGTH_LINE = re.compile(rb"\r\n%b[ \t]*:[^\r]*" % CONTENT_LENGTH, re.IGNORECASE)


def headers_in(section: bytes) -> list[Header]:
    """Take header lines apart, each of which comes behind its CR LF."""
    headers = []
    for line in section.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        headers.append((name, value.lstrip(b" \t")))
    return headers


def section_of(headers: Iterable[Header]) -> bytes:
    """Write header lines, each behind its CR LF."""
    return b"".join([b"\r\n%b: %b" % header for header in headers])


class ResponseHeaders(NamedTuple):
    """The filtered header lines of a response, as the client gets them."""

    section: bytes
    """The lines, each behind its CR LF."""
    has_length: bool = False
    """Whether one is `Content-Length`."""
    request_id: bytes | None = None
    """What `X-Request-Id` says, if there is one; of several, all."""
    cache_control: tuple[bytes, ...] = ()
    """What each `Cache-Control` says, in lower case."""
    is_targeted: bool = False
    """Whether a field speaks to certain caches: see `cache_control.TARGETED`."""


def edit_response(section: bytes) -> tuple[ResponseHeaders, list[bytes]]:
    """Give what is passed back to the caller: everything but the hop's own fields.

    `section` is the header lines, each behind its CR LF. Those that stay are as they were written.
    `Content-Length` stays as the answer's true length; the framing is chosen by `response`.
    `X-ICR-Proxy-Error` marks answers of the proxy, so the API cannot set it. What it says of its
    own framing, its transfer codings in lower case, is given as well.
    """
    kept: list[bytes] = []
    at = 0
    codings: list[bytes] = []
    has_length = names_others = is_targeted = False
    request_id: bytes | None = None
    cache_control: tuple[bytes, ...] = ()
    for found in NOTABLE_IN_ANSWERS.finditer(section.lower()):
        name, value = found.groups()
        if name in NOTED:
            if name == CONTENT_LENGTH:
                has_length = True
            elif name == CACHE_CONTROL:
                cache_control += (value,)
            elif name == REQUEST_ID:
                request_id = _joined(request_id, section[found.start(2) : found.end(2)])
            else:
                is_targeted = True
            continue
        if name == TRANSFER_ENCODING:
            codings.append(value)
        elif name == CONNECTION and value not in ABOUT_CONNECTION:
            names_others = True
        begin, end = found.span()
        kept.append(section[at:begin])
        at = end
    if names_others:
        return _without_named(headers_in(section)), codings
    if at:
        kept.append(section[at:])
        section = b"".join(kept)
    return ResponseHeaders(section, has_length, request_id, cache_control, is_targeted), codings


def _without_named(received: Sequence[Header]) -> ResponseHeaders:
    """Drop what `Connection` names as well."""
    dropped = DROPPED_FROM_ANSWERS | connection_options(fields_of(received))
    kept = [header for header in received if header[0].lower() not in dropped]
    return passed_back(kept)


def passed_back(headers: Iterable[Header]) -> ResponseHeaders:
    """Write headers as a caller gets them; nothing of them is dropped."""
    headers = tuple(headers)
    has_length = is_targeted = False
    request_id: bytes | None = None
    cache_control: list[bytes] = []
    for name, value in headers:
        lower = name.lower()
        if lower == CONTENT_LENGTH:
            has_length = True
        elif lower == CACHE_CONTROL:
            cache_control.append(value.lower())
        elif lower == REQUEST_ID:
            request_id = _joined(request_id, value)
        elif lower in TARGETED:
            is_targeted = True
    return ResponseHeaders(
        section_of(headers), has_length, request_id, tuple(cache_control), is_targeted
    )


def _joined(before: bytes | None, value: bytes) -> bytes:
    return before + b", " + value if before else value


END = b"\r\n\r\n"
BODILESS = frozenset({204, 304})  # RFC 9112, 6.3
# Switching Protocols, which nobody asked for, and what is no status: llhttp takes a body after it.
NEVER = frozenset({101, *range(100)})
# RFC 9112, 4; llhttp takes controls in the phrase, and versions 0.9 and 2.0.
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
LINES_KEPT = 64  # an API uses few
INTERIM_STARTS = (b"HTTP/1.1 1", b"HTTP/1.0 1")
LENGTH_OF_START = len(INTERIM_STARTS[0])
# Header lines without their CR LF at the end. A bare CR or LF would let another reader see the end
# of the head elsewhere; a line without a name would hide a status line. A blank before the colon is
# as wrong here as in a final response (RFC 9112, 5.1).
INTERIM_LINES = re.compile(
    rb"(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*)*"  # RFC 9110, 5.5
)
BARE = re.compile(rb"(?<!\r)\n|\r[^\n]")


class StatusLine(msgspec.Struct, frozen=True, gc=False):
    """The first line of an answer to us."""

    status: int
    reason: bytes
    is_old: bool
    """Whether it is HTTP/1.0."""


@lru_cache(maxsize=LINES_KEPT)  # in C: a look-up costs a fifth of cachetools'
def read_status_line(line: bytes) -> StatusLine | None:
    """Read a first line, if it can be that of an answer to us."""
    found = STATUS_LINE.fullmatch(line)
    if found is None or int(found[2]) in NEVER:
        return None
    return StatusLine(int(found[2]), found[3] or b"", found[1] == b"0")


def skip_interim(data: bytes) -> int | None:
    """Position of the final answer's head: behind all whole interim responses (1xx).

    An interim response says nothing about the connection or a body, whatever its headers are
    (RFC 9110, 15.2). A parser is told nothing of it: llhttp ends the connection for its
    `Connection: close` and takes a body for its `Content-Length`. None: more bytes must come first.

    Raises:
        ValueError: it is malformed, or 101, which nobody asked for.
    """
    at = 0
    while True:
        while data.startswith(b"\r\n", at):
            at += 2
        start = data[at : at + LENGTH_OF_START]
        if start not in INTERIM_STARTS:
            if len(start) == LENGTH_OF_START:
                return at
            is_begun = any(each.startswith(start) for each in (*INTERIM_STARTS, b"\r\n"))
            return None if is_begun else at
        end = data.find(END, at)
        if end < 0:
            if BARE.search(data, at) is not None:
                raise ValueError("an interim response is malformed")
            return None
        line_end = data.index(b"\r\n", at)
        if (
            read_status_line(data[at:line_end]) is None
            or INTERIM_LINES.fullmatch(data, line_end, end) is None
        ):
            raise ValueError("an interim response is malformed")
        at = end + len(END)


class ResponseHead(msgspec.Struct, frozen=True, gc=False):
    """The head of an answer."""

    line: StatusLine
    section: bytes
    """The header lines as received, each *behind* its CR LF."""
    passed_back: ResponseHeaders
    """What the caller gets of them."""
    codings: list[bytes]
    """How the body is coded for its way here."""
    end: int
    """Where the head ends in the bytes it was read from."""

    @property
    def headers(self) -> list[Header]:
        """The header lines one by one."""
        return headers_in(self.section)

    @property
    def is_plain(self) -> bool:
        """Whether the body comes as it is: what we did not ask for could not be passed on.

        So it is with `chunked` named twice, which to some is a body in chunks in a body in chunks,
        and with any coding in HTTP/1.0, where there is none (RFC 9112, 6.1).
        """
        return not self.codings or (
            len(self.codings) == 1
            and self.codings[0].strip() == b"chunked"
            and not self.line.is_old
        )


def read_response_head(data: bytes) -> ResponseHead | None:
    """Read the head that llhttp took; nothing if it is no answer to us."""
    start = 0
    while data.startswith(b"\r\n", start):  # llhttp passes over empty lines before it
        start += 2
    end = data.find(END, start)
    line_end = data.find(b"\r\n", start)
    written = data[start:line_end]
    line = read_status_line(written)
    if line is None or end < 0:
        return None
    section = data[line_end:end]
    return ResponseHead(line, section, *edit_response(section), end + len(END))
