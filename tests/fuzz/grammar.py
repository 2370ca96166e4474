"""Nearly valid HTTP/1.1: mostly right, wrong in the places where parsers have disagreed.

Everything is drawn from a `Random`: hypothesis lends one that it can shrink, the long run uses a
seeded one, and a seed is all that must be known to see a case again. The oddities come from
published attacks on request framing and from the leniencies of real servers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

INSTALLATIONS = (b"inst-1", b"inst-2", b"inst-3")
SMUGGLED = b"POST /smuggled HTTP/1.1\r\nHost: localhost\r\nX-ICR-Installation-Id: inst-3\r\n"

METHODS = (b"GET", b"GET", b"POST", b"POST", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD",
           b"OPTIONS")  # fmt: skip
ODD_METHODS = (b"get", b"FOO", b"M-SEARCH", b"CONNECT", b"TRACE", b"PRI", b"", b"G ET", b"GET\t",
               b"G\x00T", b"\xc3\xa9", b"A" * 70, b"GET,", b"PURGE", b"SOURCE", b"(GET)", b"!",
               b"HTTP/1.1", b"DESCRIBE")  # fmt: skip
TARGETS = (b"/projects", b"/projects", b"/organizations/o1/inventory?page=1&size=2", b"/v1/retire",
           b"/a%20b", b"/x?", b"/x?a=%0d%0aHost:%20evil", b"/~inst-1/projects", b"/")  # fmt: skip
ODD_TARGETS = (b"*", b"http://127.0.0.1:9/projects", b"http://evil/", b"//x//y", b"", b"/a b",
               b"/a\tb", b"/#f", b"/\xc3\xa9", b"/\xff", b"/a\x00b", b"/a\x7fb", b"/a\rb",
               b"projects", b"?x", b"/app/installations", b"/%61pp/x", b"/..%2fapp", b"/../app",
               b"http://", b"127.0.0.1:9", b"/a\\b", b"/<>", b'/{}|^`"', b"https://127.0.0.1:9/x",
               b"/" + b"a" * 300)  # fmt: skip
ODD_VERSIONS = (b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1",
                b"HTTP/1.1 ", b" HTTP/1.1", b"HTTP/01.1", b"HTTP/1.1.1", b"HTTP/1.", b"",
                b"HTTP/11", b"ICY/1.1", b"HTTP/1.1\t", b"HTTPS/1.1", b"RTSP/1.0")  # fmt: skip

PLAIN_HEADERS = (b"Accept: */*", b"User-Agent: fuzz", b"X-A: 1", b"x-a: 2", b"Cookie: a=b; c=d",
                 b"Content-Type: application/json", b"X-Empty:", b"X-Tab:\tv\t",
                 b"X-Utf8: \xc3\xa9", b"X-Latin: \xe9", b"Connection: keep-alive",
                 b"Accept-Encoding: gzip", b"x-icr-api-version: 2023-06-16", b"Idempotency-Key: k",
                 b'If-None-Match: "x"', b"Forwarded: for=1.2.3.4", b"X-Forwarded-For: 1.2.3.4",
                 b"Via: 1.0 a", b"X-Request-Id: abc", b"TE: trailers", b"Keep-Alive: timeout=5",
                 b"Authorization: Bearer callers-own", b"Trailer: X-T")  # fmt: skip
ODD_HEADERS = (b"X-A : 1", b" folded: x", b"\tfolded", b"no colon", b": empty", b"X-\x00: 1",
               b"X-A: a\x00b", b"X-A: a\rb", b"X-A: a\nX-B: c", b"X-A: a\r X-B: c", b"X A: 1",
               b"X-A: \x01", b"X-A: \x7f", b"X\xe9: 1", b"X-A:\x0b1", b"(x): 1", b'"x": 1',
               b"Connection: close", b"Connection: x-icr-installation-id",
               b"Connection: content-length", b"Connection: transfer-encoding, close",
               b"Connection: host", b"Connection: upgrade", b"Connection: upgrade\r\nUpgrade: h2c",
               b"Connection: Upgrade\r\nUpgrade: websocket",
               b"Connection: keep-alive, upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA",
               b"Upgrade: h2c", b"Expect: 100-continue", b"Expect: 100-Continue",
               b"Expect: nonsense", b"Connection: authorization", b"Connection: ,,, ,",
               b"Proxy-Connection: close", b"X-ICR-Installation-Id: inst-2",
               b"X_ICR_Installation_Id: inst-2", b"X-ICR-Installation_Id: inst-2",
               b"x-icr-installation-id:inst-1", b"X-ICR-Organization-Id: org-1",
               b"X-ICR-Installation-Id : inst-2", b"Host: localhost", b"Host: evil",
               b"Host : localhost", b"Content_Length: 3", b"Transfer_Encoding: chunked",
               b"Content-Length\x00: 3", b"X-HTTP-Method-Override: DELETE", b"x-icr-api-version: 1",
               b"X-Long: " + b"l" * 400, b"Content-Encoding: gzip", b"Sec-Fetch-Site: same-origin",
               b"Authorization: Basic aW5zdC0xOg==", b"Proxy-Authorization: x",
               b"X-ICR-Proxy-Error: x", b"Transfer-Encodin: g", b"Host:")  # fmt: skip

LENGTHS = (b"%d", b"0%d", b"+%d", b"-%d", b"%d, %d", b"%d,%d", b"%d, 0", b"0x%x", b"%d ", b"%d\t",
           b"%d;", b"", b"1%d", b"%d0", b"%d.0", b"%d e", b"1_%d", b"%d\x00", b"%d\x0b", b"\x0b%d",
           b"%d\r\n ", b"\xef\xbc\x90%d", b"18446744073709551616", b"18446744073709551%03d",
           b"9223372036854775808", b"%d a", b'"%d"', b"000000000000000000000000%d",
           b"%d\r\nContent-Length: %d", b"%d\r\nContent-Length: 0", b"0\r\nContent-Length: %d",
           b"%d\r\ncontent-length: 1%d", b"%d\r\nContent-Length : %d", b"%d\nX: y", b"%d\x00",
           b"%d\r\nTransfer-Encoding: chunked", b"%d\r\nTransfer-Encoding: identity")  # fmt: skip
LENGTH_NAMES = (b"Content-Length", b"content-length", b"Content-Length ", b" Content-Length",
                b"Content-Length\t", b"Content_Length", b"\x00Content-Length",
                b"Content-Length\x0b", b"CONTENT-LENGTH", b"X\r\nContent-Length")  # fmt: skip
CODINGS = (b"chunked", b"Chunked", b"CHUNKED", b"chunked ", b"\tchunked", b"chunked\x0b",
           b"\x0bchunked", b"chunked,", b",chunked", b", chunked", b"chunked;q=1", b"chunked ;a",
           b"xchunked", b"chunkedx", b"chunke", b"identity", b"gzip, chunked", b"gzip", b"",
           b"chunked, identity", b"identity, chunked", b"chunked, chunked", b'"chunked"',
           b"'chunked'", b"chunked\r\n ", b"\r\n chunked", b"chunked\x00", b"chunked\xa0",
           b"chunked\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: identity",
           b"identity\r\nTransfer-Encoding: chunked", b"x\r\nTransfer-Encoding: chunked",
           b"chunked\r\nContent-Length: 5", b"chunked\r\nContent-Length: 0", b"c\rhunked",
           b"chunked\nX: y", b"ch\xc5\xbfunked", b"trailers, chunked", b"deflate,chunked",
           b"chunked\r\nContent-Length : 3", b"\xefchunked")  # fmt: skip
CODING_NAMES = (b"Transfer-Encoding", b"Transfer-Encoding", b"transfer-encoding",
                b"Transfer-Encoding ", b" Transfer-Encoding", b"Transfer_Encoding",
                b"Transfer-Encoding\t", b"\x00Transfer-Encoding", b"Transfer-Encoding\x00",
                b"X: y\nTransfer-Encoding", b"X: y\rTransfer-Encoding",
                b"TRANSFER-ENCODING")  # fmt: skip
SIZES = (b"%x", b"%X", b"0%x", b"00000000000%x", b"%x;ext", b"%x;a=b", b'%x; a="b;c"', b"%x ",
         b"%x ;ext", b"\t%x", b" %x", b"0x%x", b"+%x", b"-%x", b"%x\x00", b"%x\x0b", b"%xg", b"",
         b"%x;\x00", b"%x;a\rb", b"%x;a\nb", b"%x\n", b"%x\r", b"1%x", b"%x0",
         b"ffffffffffffffff%x", b"fffffffffffffff0", b"%x_", b"%x,", b"%x;" + b"e" * 300, b"%x\xa0",
         b"10000000000000000%x", b"%x;\xff", b"%x \t;a", b"%x;\r\n\r\n", b"_%x",
         b"%x.")  # fmt: skip
ENDS = (b"0\r\n\r\n", b"00\r\n\r\n", b"0;x\r\n\r\n", b"0\r\nX-T: v\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nX-ICR-Installation-Id: inst-2\r\n\r\n",
        b"0\r\nbad\r\n\r\n", b"0\r\n x\r\n\r\n", b"0\n\r\n", b"0\r\n\n", b"0\n\n", b"0\r\n", b"0",
        b"", b"0\r\r\n", b"0\r\n\rX", b"0 \r\n\r\n", b"-0\r\n\r\n", b"0x0\r\n\r\n", b"\r\n\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nA: b\nC: d\r\n\r\n",
        b"0000000000000000000000\r\n\r\n", b"0\r\nX-T : v\r\n\r\n", b"0\r\n\x00: v\r\n\r\n",
        b"0\r\nHost: evil\r\n\r\n", b"0\r\nX: a\rb\r\n\r\n", b"0\r\n: v\r\n\r\n")  # fmt: skip
BREAKS = (b"\r\n", b"\n", b"\r", b"", b"\r\n\r\n", b"x\r\n", b" \r\n", b"\r\r\n", b"\n\r",
          b"\x00\r\n", b"xx", b"\r\x00")  # fmt: skip
GARBAGE = (b"\r\n", b"\r\n\r\n", b"\n", b"\x00", b"garbage", b"0\r\n\r\n", b"\x16\x03\x01\x02\x00",
           b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b" ", SMUGGLED + b"\r\n", b"\r",
           b"HTTP/1.1 200 OK\r\n", b"GET /smuggled HTTP/1.1\r\n",
           SMUGGLED + b"Content-Length: 0\r\n\r\n", b"\r\n \r\n")  # fmt: skip
SPECIAL = (b"\r", b"\n", b"\r\n", b"\x00", b" ", b"\t", b":", b";", b",", b"0", b"\x80", b"\xff",
           b"\x0b", b"\x7f", b"\r\n\r\n", b"Content-Length: 4\r\n", b"\r\n ", b"1")  # fmt: skip


@dataclass(slots=True)
class Case:
    """What one caller sends, how it is cut, and how the caller leaves."""

    pieces: list[bytes]
    is_plain: bool
    """Whether nothing in it is odd, so that it must be served."""
    pause: list[bool] = field(default_factory=list)
    """After which pieces the caller waits until all is quiet."""
    ending: str = "wait"
    """`wait` for the proxy to close, `close`, `half close` or `reset` at once, or `read late`."""

    @property
    def stream(self) -> bytes:
        """All that is sent."""
        return b"".join(self.pieces)


def make_case(random: Random) -> Case:
    """Draw what one caller does."""
    odd = random.random() < 0.8
    requests = [make_request(random, odd=odd) for _ in range(random.choice((1, 1, 1, 2, 2, 3, 5)))]
    if odd and random.random() < 0.2:
        requests.insert(random.randrange(len(requests) + 1), random.choice(GARBAGE))
    stream = b"".join(requests)
    if odd and random.random() < 0.25:
        for _ in range(random.choice((1, 1, 2, 4))):
            stream = mutate(random, stream)
    pieces = cut(random, stream)
    return Case(
        pieces=pieces,
        is_plain=not odd,
        pause=[random.random() < 0.3 for _ in pieces],
        ending=random.choice(("wait", "wait", "wait", "close", "half close", "reset", "read late")),
    )


def make_request(random: Random, *, odd: bool) -> bytes:
    """Draw one request; at most a few things about it are odd."""
    chance = random.choice((0.0, 0.05, 0.2)) if odd else 0.0

    def often(usual: tuple[bytes, ...], strange: tuple[bytes, ...]) -> bytes:
        return random.choice(strange if random.random() < chance else usual)

    method = often(METHODS, ODD_METHODS)
    version = often((b"HTTP/1.1",), ODD_VERSIONS)
    lines = [often((b"%b %b %b" % (method, often(TARGETS, ODD_TARGETS), version),), GARBAGE)]
    named = [b"Host: localhost", b"X-ICR-Installation-Id: " + random.choice(INSTALLATIONS)]
    lines += [line for line in named if random.random() >= chance / 2]
    # Some must not be repeated.
    lines += [
        often((each,), ODD_HEADERS) for each in random.sample(PLAIN_HEADERS, random.randrange(4))
    ]
    framing, body = make_body(random, chance=chance)
    if framing:
        lines.insert(random.randrange(1, len(lines) + 1), framing)
    return often((b"\r\n",), BREAKS).join((*lines, b"", b"")) + body


def make_body(random: Random, *, chance: float) -> tuple[bytes, bytes]:
    """Draw the header that frames a body, and the bytes that follow the head."""
    kind = random.randrange(10)
    content = make_content(random)
    if kind < 4:
        return b"", content if random.random() < chance / 4 else b""
    if kind < 7:
        name = odd_one(random, LENGTH_NAMES, chance)
        size = len(content) + (random.choice((-2, -1, 1, 2, 40)) if random.random() < chance else 0)
        value = odd_one(random, LENGTHS, chance)
        return name + b": " + fill(value, max(size, 0)), content
    name = odd_one(random, CODING_NAMES, chance)
    return name + b": " + odd_one(random, CODINGS, chance), chunked(random, content, chance=chance)


def make_content(random: Random) -> bytes:
    """Draw a body as such; some look like requests."""
    kind = random.randrange(8)
    if kind == 0:
        return SMUGGLED + b"Content-Length: 3\r\n\r\nabc"
    if kind == 1:
        return b"0\r\n\r\n" + SMUGGLED + b"\r\n"
    if kind == 2:
        return bytes(random.randrange(256) for _ in range(random.randrange(40)))
    return b'{"amount":"%d"}' % random.randrange(10**6) * random.choice((0, 1, 1, 1, 3, 50))


def chunked(random: Random, content: bytes, *, chance: float) -> bytes:
    """Write a body in chunks."""
    written = b""
    while content:
        size = random.randrange(1, len(content) + 1)
        said = size + (random.choice((-1, 1, 2, -2)) if random.random() < chance / 2 else 0)
        line = fill(odd_one(random, SIZES, chance / 2), max(said, 0))
        written += line + odd_one(random, BREAKS, chance / 3)
        written += content[:size] + odd_one(random, BREAKS, chance / 3)
        content = content[size:]
    return written + odd_one(random, ENDS, chance)


def odd_one(random: Random, choices: tuple[bytes, ...], chance: float) -> bytes:
    """Give the first, which is right, or perhaps another."""
    return random.choice(choices) if random.random() < chance else choices[0]


def fill(form: bytes, number: int) -> bytes:
    """Put a number in wherever the form has a place for it."""
    return form % ((number,) * (form.count(b"%")))


def mutate(random: Random, stream: bytes) -> bytes:
    """Change a few bytes somewhere."""
    at = random.randrange(len(stream) + 1)
    kind = random.randrange(7)
    if kind == 0:
        return stream[:at]
    if kind == 1:
        return stream[:at] + bytes([random.randrange(256)]) + stream[at + 1 :]
    if kind == 2:
        return stream[:at] + stream[at + random.randrange(1, 5) :]
    if kind == 3:
        end = at + random.randrange(1, 60)
        return stream[:end] + stream[at:]
    if kind == 4:
        return stream.replace(b"\r\n", b"\n", random.choice((1, 2, -1)))
    return stream[:at] + random.choice(SPECIAL) + stream[at:]


def cut(random: Random, stream: bytes) -> list[bytes]:
    """Cut into the packets in which it is sent."""
    kind = random.randrange(8)
    if kind < 3 or not stream:
        return [stream]
    if kind == 3 and len(stream) < 300:
        return [stream[at : at + 1] for at in range(len(stream))]
    if kind == 4:
        return stream.splitlines(keepends=True)
    at = sorted(random.randrange(len(stream) + 1) for _ in range(random.choice((1, 1, 2, 3, 6))))
    pieces = [stream[low:high] for low, high in zip([0, *at], [*at, len(stream)], strict=True)]
    return [piece for piece in pieces if piece]
