"""What is sent to real servers, with and without the proxy in front: framing that servers dispute.

Made from the tables of the fuzzers' grammar, one oddity at a time, from the rows of the smuggling
story that the proxy refuses, and of a few whole streams by hand.
Every target begins with the number of its case, so that a request tells where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.fuzz import grammar
from tests.integration.test_smuggling import REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator

TAG = b"X-ICR-Installation-Id: inst-1"
MARK = b"@@"  # where the number of the case goes


@dataclass(frozen=True, slots=True)
class Case:
    """One stream of a caller; nothing follows it."""

    name: str
    stream: bytes


def cases() -> list[Case]:
    """Give all of them, with their numbers in their targets."""
    return [
        Case(f"{number:03d} {name}", stream.replace(MARK, b"%03d" % number))
        for number, (name, stream) in enumerate(_all())
    ]


def request(*lines: bytes, method: bytes = b"GET", path: bytes = b"first") -> bytes:
    """Write the head of a request that should pass, but for what is odd about `lines`."""
    head = (b"%b /@@/%b HTTP/1.1" % (method, path), b"Host: localhost", TAG, *lines)
    return b"\r\n".join((*head, b"", b""))


SMUGGLED = request(b"Content-Length: 0", method=b"POST", path=b"smuggled")
LAST = request(path=b"last")


def _all() -> Iterator[tuple[str, bytes]]:
    yield from _plain()
    for name, lines in (("length", grammar.LENGTHS), ("length name", grammar.LENGTH_NAMES)):
        for odd in lines:
            header = odd + b": %d" if name != "length" else b"Content-Length: " + odd
            yield f"{name} {odd!r}", _with_length(header)
    for odd in grammar.CODINGS:
        yield f"coding {odd!r}", _with_chunks(b"Transfer-Encoding: " + odd)
    for odd in grammar.CODING_NAMES:
        yield f"coding name {odd!r}", _with_chunks(odd + b": chunked")
    yield from _odd_chunks()
    for number, refused in enumerate(REFUSED):
        yield f"row {number} of the story", refused.replace(b" /", b" /@@/", 1) + LAST
    for odd in grammar.ODD_HEADERS:
        yield f"header {odd[:40]!r}", request(odd) + LAST
    for odd in grammar.ODD_VERSIONS:
        yield f"version {odd!r}", request().replace(b"HTTP/1.1", odd, 1) + LAST
    for odd in grammar.ODD_METHODS:
        yield f"method {odd[:20]!r}", request(method=odd) + LAST


def _odd_chunks() -> Iterator[tuple[str, bytes]]:
    for odd in grammar.SIZES:
        line = grammar.fill(odd, len(SMUGGLED))
        yield f"size {odd[:20]!r}", _in_chunks(line + b"\r\n" + SMUGGLED + b"\r\n0\r\n\r\n")
    for odd in grammar.BREAKS:
        yield f"break {odd!r} after size", _in_chunks(b"3" + odd + b"abc\r\n0\r\n\r\n" + SMUGGLED)
        yield f"break {odd!r} after chunk", _in_chunks(b"3\r\nabc" + odd + b"0\r\n\r\n" + SMUGGLED)
        yield f"break {odd!r} of lines", LAST.replace(b"\r\n", odd) + SMUGGLED
    for odd in grammar.ENDS:
        yield f"end {odd!r}", _in_chunks(b"3\r\nabc\r\n" + odd)


def _plain() -> Iterator[tuple[str, bytes]]:
    """What must be served, by everybody alike."""
    yield "plain", request(b"X-A: 1") + LAST
    yield "plain length", request(b"Content-Length: 3", method=b"POST") + b"abc" + LAST
    yield "plain empty length", request(b"Content-Length: 0", method=b"POST") + LAST
    yield "plain body like a request", _with_length(b"Content-Length: %d")
    yield "plain chunks", _in_chunks(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    yield "plain target", request(path=b"x?a=%2F%00&b=c;d//e/../f") + LAST
    yield "plain repeated header", request(b"X-A: 1", b"X-A: 2", b"x-a: 3")
    yield "plain body of DELETE", request(b"Content-Length: 2", method=b"DELETE") + b"{}" + LAST
    yield "plain latin-1 value", request(b"X-A: \xe9\xff")


def _with_length(header: bytes) -> bytes:
    """Write a body that is a request to whoever does not see its length."""
    line = grammar.fill(header, len(SMUGGLED))
    return request(line, method=b"POST") + SMUGGLED + LAST


def _with_chunks(header: bytes) -> bytes:
    """Write chunks that hide a request from whoever reads them, and show it to others."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    return request(header, method=b"POST") + body + LAST


def _in_chunks(body: bytes) -> bytes:
    return request(b"Transfer-Encoding: chunked", method=b"POST") + body + LAST
