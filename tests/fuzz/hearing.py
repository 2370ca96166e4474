"""A strict reading of what came back to a caller: whole answers, and what is left over."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.fuzz.reference import CHUNK, FIELD, Header

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Malformed(Exception):  # noqa: N818  # it is what was heard, not an error of this program
    """No caller could make sense of it."""


@dataclass(slots=True)
class Heard:
    """One answer; `is_whole` tells whether its framing says so."""

    status: int
    reason: bytes
    headers: list[Header]
    body: bytes = b""
    is_whole: bool = True
    ends_with_connection: bool = False
    """Whether only the end of the connection says that it is whole."""
    interim: int = 0
    """How many times the caller was told to go on before it."""

    def values(self, name: bytes) -> list[bytes]:
        """Give all values of a header."""
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(slots=True)
class Hearing:
    """All answers on one connection, and how it ended."""

    answers: list[Heard] = field(default_factory=list)
    rest: bytes = b""


def hear(data: bytes, *, methods: list[bytes]) -> Hearing:
    """Read all answers to requests with these methods, one after the other.

    Raises:
        Malformed: a byte is where it must not be.
    """
    hearing = Hearing()
    while data:
        interim = 0
        while data.startswith(CONTINUE):
            interim, data = interim + 1, data[len(CONTINUE) :]
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            hearing.rest = data
            return hearing
        method = methods[len(hearing.answers)] if len(hearing.answers) < len(methods) else b"-"
        answer = _head(head)
        answer.interim = interim
        data = _body(answer, rest, is_head=method == b"HEAD")
        hearing.answers.append(answer)
    return hearing


def _head(head: bytes) -> Heard:
    line, *lines = head.split(b"\r\n")
    status = STATUS_LINE.fullmatch(line)
    if status is None:
        raise Malformed(f"status line {line!r}")
    headers: list[Header] = []
    for each in lines:
        found = FIELD.fullmatch(each)
        if found is None:
            raise Malformed(f"header {each!r}")
        headers.append((found[1], found[2]))
    return Heard(status=int(status[1]), reason=status[2], headers=headers)


def _body(answer: Heard, data: bytes, *, is_head: bool) -> bytes:
    lengths, codings = answer.values(b"content-length"), answer.values(b"transfer-encoding")
    if is_head or answer.status in (204, 304):
        return data
    if codings:
        if lengths or codings != [b"chunked"]:
            raise Malformed("two framings")
        return _chunks(answer, data)
    if lengths:
        if len(lengths) > 1 or not lengths[0].isdigit():
            raise Malformed("no clear length")
        size = int(lengths[0])
        answer.body, answer.is_whole = data[:size], len(data) >= size
        return data[size:]
    answer.body, answer.ends_with_connection = data, True
    return b""


def _chunks(answer: Heard, data: bytes) -> bytes:
    while True:
        line, end, rest = data.partition(b"\r\n")
        if not end:
            answer.is_whole = False
            return b""
        found = CHUNK.fullmatch(line)
        if found is None:
            raise Malformed(f"chunk {line!r}")
        size = int(found[1], 16)
        answer.body += rest[:size]
        if len(rest) < size + 2:
            answer.is_whole = False
            return b""
        if rest[size : size + 2] != b"\r\n":
            raise Malformed("a chunk without end, or trailers")
        data = rest[size + 2 :]
        if size == 0:
            return data
