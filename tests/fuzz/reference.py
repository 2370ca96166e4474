"""A strict reading of what a caller sends, by RFC 9112 and nothing else; knows no proxy.

Whatever can be read in two ways ends the reading: what stands before it may be forwarded, nothing
else. Slow and plain on purpose; it is what the fast parsers are measured against.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Header = tuple[bytes, bytes]

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Bytes above ASCII are no part of a URI, but many clients send them raw and every server reads them
# as the same bytes.
REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])" % TOKEN)
FIELD = re.compile(rb"(%b):[ \t]*(|[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*"
                   rb"[\x21-\x7e\x80-\xff])?)[ \t]*" % TOKEN)  # fmt: skip
CHUNK = re.compile(rb"(0*[0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class Unreadable(Exception):  # noqa: N818  # it is what happened, not an error of this program
    """It can be read in more than one way, or in none."""


class Unfinished(Exception):  # noqa: N818  # likewise
    """It ends too early."""


@dataclass(slots=True)
class Message:
    """One request as its sender meant it."""

    method: bytes
    target: bytes
    version: bytes
    headers: list[Header]
    body: bytes = b""
    framing: bytes = b""
    """The name of the header that says where the body ends."""
    tail: bytes = b""
    """What came after it."""

    def values(self, name: bytes) -> list[bytes]:
        """Give all values of a header."""
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def options(self) -> set[bytes]:
        """What `Connection` says."""
        return {part.strip(b" \t").lower() for value in self.values(b"connection")
                for part in value.split(b",")}  # fmt: skip

    @property
    def ends_connection(self) -> bool:
        """Whether nothing that follows is a request (RFC 9112, 9.3)."""
        if b"close" in self.options:
            return True
        return self.version == b"0" and b"keep-alive" not in self.options


@dataclass(slots=True)
class Reading:
    """All requests that are whole and clear; `rest` is what comes after them."""

    messages: list[Message] = field(default_factory=list)
    rest: bytes = b""


def read_strictly(stream: bytes) -> Reading:
    """Read as many requests as are there."""
    reading = Reading(rest=stream)
    while True:
        # RFC 9112, 2.2: empty lines before a request are passed over.
        reading.rest = reading.rest.lstrip(b"\r\n")
        try:
            message = _message(reading.rest)
        except (Unreadable, Unfinished):
            return reading
        reading.messages.append(message)
        reading.rest = message.tail
        if message.ends_connection:
            return reading


def _message(data: bytes) -> Message:
    line, rest = _line(data)
    found = REQUEST_LINE.fullmatch(line)
    if found is None:
        raise Unreadable
    headers, rest = _fields(rest)
    message = Message(found[1], found[2], found[3], headers)
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Unreadable
    if codings:
        if codings[0].lower() != b"chunked" or message.version == b"0":
            raise Unreadable
        message.framing = b"transfer-encoding"
        message.body, message.tail = _chunks(rest)
    elif lengths:
        if re.fullmatch(rb"0*[0-9]{1,18}", lengths[0]) is None:
            raise Unreadable
        message.framing = b"content-length"
        message.body, message.tail = _bytes(rest, int(lengths[0]))
    else:
        message.tail = rest
    return message


def _fields(data: bytes) -> tuple[list[Header], bytes]:
    headers: list[Header] = []
    while True:
        line, data = _line(data)
        if not line:
            return headers, data
        found = FIELD.fullmatch(line)
        if found is None:
            raise Unreadable
        headers.append((found[1], found[2]))


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, data = _line(data)
        found = CHUNK.fullmatch(line)
        if found is None:
            raise Unreadable
        size = int(found[1], 16)
        if size == 0:
            return body, _fields(data)[1]
        piece, data = _bytes(data, size)
        if data[:2] != b"\r\n":
            raise Unreadable if len(data) > 1 else Unfinished
        body, data = body + piece, data[2:]


def _line(data: bytes) -> tuple[bytes, bytes]:
    """Take a line that ends in CRLF; a bare CR or LF in it makes it unreadable."""
    line, end, rest = data.partition(b"\r\n")
    if not end:
        raise Unfinished
    if b"\r" in line or b"\n" in line:
        raise Unreadable
    return line, rest


def _bytes(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise Unfinished
    return data[:size], data[size:]
