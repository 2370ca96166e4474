"""Nearly valid answers of an API, and the strict reading of them.

The same idea as `grammar`: right in most places, wrong where parsers have disagreed, and cut
anywhere. What follows an answer is poison: whoever is given it was given somebody else's bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fuzz.grammar import BREAKS, CODINGS, LENGTHS, chunked, cut, fill, mutate, odd_one
from tests.fuzz.reference import CHUNK, FIELD, Header, Unfinished, Unreadable

if TYPE_CHECKING:
    from random import Random

POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
STATUSES = (b"200 OK", b"200 OK", b"200 OK", b"201 Created", b"404 Not Found", b"204 No Content",
            b"304 Not Modified", b"206 Partial Content", b"500 Internal Server Error", b"302 Found",
            b"401 Unauthorized", b"403 Forbidden", b"200 ", b"200 Sehr Gut \xc3\xa9", b"599 x",
            b"205 Reset Content")  # fmt: skip
ODD_LINES = (b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1  200 OK", b"HTTP/2 200",
             b"HTTP/1.1 99 x", b"HTTP/1.1 2000 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 100 Continue",
             b"HTTP/1.1 101 Switch", b"HTTP/1.1 199 x", b"200 OK", b"ICY 200 OK",
             b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\x00K", b"http/1.1 200 OK", b"HTTP/1.2 200 OK",
             b"HTTP/1.1 -20 OK", b"HTTP/1.1 2x0 OK", b"", b"HTTP/1.1\t200\tOK", b"HTTP/1.1 0200 OK",
             b"HTTP/0.9 200 OK", b"HTTP/1.1 600 OK", b"HTTP/1.1 000 OK", b"RTSP/1.0 200 OK",
             b"HTTP/1.1 200\x0bOK")  # fmt: skip
INTERIM = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
           b"HTTP/1.1 102 Processing\r\nContent-Length: 3\r\n\r\n",
           b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
           b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n")  # fmt: skip
HEADERS = (b"Content-Type: application/json", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b'ETag: "x"',
           b"Date: Tue, 15 Nov 1994 08:12:31 GMT", b"X-Utf8: \xc3\xa9", b"X-Empty:", b"Server: api",
           b"Cache-Control: no-store", b"X-ICR-Proxy-Error: forged", b"Keep-Alive: timeout=5",
           b"Connection: keep-alive", b"Location: http://127.0.0.1:9/x", b"Vary: *")  # fmt: skip
ODD_HEADERS = (b"X-A : 1", b" folded: x", b"\tfold", b"no colon", b": empty", b"X-\x00: 1",
               b"X-A: a\x00b", b"X-A: a\rb", b"X-A: a\nX-B: c", b"X A: 1", b"X-A: \x01",
               b"X\xe9: 1", b"Connection: close", b"Connection: x-a", b"Connection: upgrade",
               b"Upgrade: h2c", b"Connection: content-length", b"Connection: transfer-encoding",
               b"Trailer: X-T", b"Content-Length: 3", b"Transfer-Encoding: chunked",
               b"Content_Length: 3", b"Proxy-Connection: close", b"Content-Encoding: gzip",
               b"X-A: \x7f", b"Connection: close, keep-alive", b"Content-Length : 3")  # fmt: skip
SURPLUS = (b"", b"", POISON, b"\r\n", b"garbage", b"\x00", b"0\r\n\r\n", POISON * 2, b"H",
           b"\r\n" + POISON)  # fmt: skip

BODILESS = (204, 304)
# Statuses after which the proxy asks once more, with another token.
ABOUT_TOKEN = (401, 403)


@dataclass(slots=True)
class Saying:
    """What an API says to one request, and when it leaves."""

    method: bytes
    pieces: list[bytes]
    is_plain: bool
    ending: str
    """`stay`, `close` or `reset`."""
    second: int = 0
    """After which piece another installation's request comes."""
    pause: list[bool] = field(default_factory=list)
    """Before which pieces all is quiet."""

    @property
    def stream(self) -> bytes:
        """All that is said."""
        return b"".join(self.pieces)


def make_saying(random: Random) -> Saying:
    """Draw what an API does."""
    odd = random.random() < 0.8
    method = random.choice((b"GET", b"GET", b"POST", b"HEAD"))
    stream = make_answer(random, odd=odd, is_head=method == b"HEAD")
    if odd and random.random() < 0.3:
        stream += random.choice(SURPLUS)
    if odd and random.random() < 0.25:
        for _ in range(random.choice((1, 1, 2, 4))):
            stream = mutate(random, stream)
    pieces = cut(random, stream)
    return Saying(
        method=method,
        pieces=pieces,
        is_plain=not odd,
        ending=random.choice(("stay", "close", "reset")) if odd else "close",
        second=random.randrange(len(pieces) + 1),
        pause=[random.random() < 0.4 for _ in pieces],
    )


def make_answer(random: Random, *, odd: bool, is_head: bool) -> bytes:
    """Draw one answer with all its bytes."""
    chance = random.choice((0.0, 0.05, 0.2)) if odd else 0.0
    interim = random.choice(INTERIM) if odd and random.random() < chance + 0.03 else b""
    status = random.choice(STATUSES)
    line = random.choice(ODD_LINES) if random.random() < chance else b"HTTP/1.1 " + status
    headers = [
        random.choice(ODD_HEADERS) if random.random() < chance else each
        for each in random.sample(HEADERS, random.randrange(5))
    ]
    content = b'{"n":%d}' % random.randrange(10**6) * random.choice((0, 1, 1, 2, 60))
    kind = random.randrange(7)
    body = content
    if kind < 3:
        size = len(content) + (random.choice((-1, 1, 5, -3)) if random.random() < chance else 0)
        headers.append(b"Content-Length: " + fill(odd_one(random, LENGTHS, chance), max(size, 0)))
    elif kind < 6:
        headers.append(b"Transfer-Encoding: " + odd_one(random, CODINGS, chance))
        body = chunked(random, content, chance=chance)
    random.shuffle(headers)
    if (is_head or status[:3] in (b"204", b"304")) and random.random() >= chance:
        body = b""
    return interim + odd_one(random, BREAKS, chance / 8).join((line, *headers, b"", b"")) + body


@dataclass(slots=True)
class Truth:
    """The strict reading of what an API said."""

    version: bytes
    status: int
    reason: bytes
    headers: list[Header]
    body: bytes = b""
    surplus: bytes = b""
    until_close: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """Give all values of a header."""
        return [value for key, value in self.headers if key.lower() == name]


# llhttp takes another protocol's name, and what is passed on has ours. A status beyond 599 (RFC
# 9110, 15) is a server's mistake that is no danger to anybody.
STATUS_LINE = re.compile(
    rb"(?:HTTP|RTSP|ICE)/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?"
)


def read_answer_strictly(stream: bytes, *, method: bytes) -> Truth:
    """Read the answer to one request.

    Raises:
        Unfinished: it ends too early.
        Unreadable: it has no reading, or two.
    """
    while True:
        truth, rest = _head(stream.lstrip(b"\r\n"))  # llhttp takes empty lines before it
        if truth.status >= 200:
            break
        if truth.status == 101:
            raise Unreadable
        stream = rest  # whatever it says of a length: RFC 9112, 6.3
    codings, lengths = _framing(truth)
    if method == b"HEAD" or truth.status in BODILESS:
        truth.surplus = rest
    elif codings:
        truth.body, truth.surplus = _chunks(rest)
    elif lengths:
        size = int(lengths[0])
        if len(rest) < size:
            raise Unfinished
        truth.body, truth.surplus = rest[:size], rest[size:]
    else:
        truth.body, truth.until_close = rest, True
    return truth


def _framing(truth: Truth) -> tuple[list[bytes], list[bytes]]:
    codings, lengths = truth.values(b"transfer-encoding"), truth.values(b"content-length")
    if len(codings) + len(lengths) > 1:
        raise Unreadable
    if codings and (codings[0].lower() != b"chunked" or truth.version == b"0"):
        raise Unreadable
    if lengths and re.fullmatch(rb"0*[0-9]{1,20}", lengths[0]) is None:
        raise Unreadable
    return codings, lengths


def _head(stream: bytes) -> tuple[Truth, bytes]:
    head, end, rest = stream.partition(b"\r\n\r\n")
    if not end:
        raise Unfinished
    line, *lines = head.split(b"\r\n")
    found = STATUS_LINE.fullmatch(line)
    if found is None:
        raise Unreadable
    truth = Truth(found[1], int(found[2]), found[3] or b"", [])
    for each in lines:
        header = FIELD.fullmatch(each)
        if header is None:
            raise Unreadable
        truth.headers.append((header[1], header[2]))
    return truth, rest


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            raise Unfinished
        found = CHUNK.fullmatch(line)
        if found is None:
            raise Unreadable
        size = int(found[1], 16)
        if size == 0:
            return body, _trailers(data)
        if len(data) < size + 2:
            raise Unfinished
        if data[size : size + 2] != b"\r\n":
            raise Unreadable
        body, data = body + data[:size], data[size + 2 :]


def _trailers(data: bytes) -> bytes:
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            raise Unfinished
        if not line:
            return data
        if FIELD.fullmatch(line) is None:
            raise Unreadable
