"""An API in memory that takes nothing but exact HTTP, and keeps what it was sent.

Every request is parsed twice: by h11, which shares no code with the proxy, and by a reading that
only knows the one shape in which this proxy writes.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11

from tests.fuzz.reference import Header, read_strictly

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

MINT = re.compile(rb"/app/installations/([A-Za-z0-9_-]+)/accessTokens")
DIRECTORY = b"/app/installations?limit=100&page=0"
APP_SIGNATURE = b"Bearer eyJ"
MINTED = b'{"token":"crs_%048d","expiresAt":"2999-01-01T00:00:00Z"}'


@dataclass(slots=True)
class Seen:
    """A whole request as the API understood it."""

    number: int
    method: bytes
    target: bytes
    headers: list[Header]
    body: bytes
    installation: bytes | None
    """Whose token it carried."""
    host: bytes
    """Which `Host` it must have."""
    was_refused: bool = False
    """Whether it was answered with 401, so that it may come once more."""


@dataclass(slots=True)
class Api:
    """What all connections to the API have in common."""

    random: Random
    requests: list[Seen] = field(default_factory=list)
    tokens: dict[bytes, bytes] = field(default_factory=dict)
    """Token to installation."""
    wrong: list[str] = field(default_factory=list)
    """What must never be seen."""
    host: bytes = b"127.0.0.1:9"
    refuses: float = 0.02
    """How often a token is refused, live or not."""

    def connection(self) -> asyncio.Protocol:
        """Make the protocol of a new connection."""
        return ApiConnection(self)

    def mint(self, installation: bytes) -> bytes:
        """Issue a token, which tells by itself whose it is."""
        number = len(self.tokens) + 1
        self.tokens[b"crs_%048d" % number] = installation
        return plain(200, MINTED % number)

    def record(self, message: Incoming) -> Seen:
        """Keep a request, once it is whole."""
        given = [value for name, value in message.headers if name.lower() == b"authorization"]
        token = given[0].removeprefix(b"Bearer ") if len(given) == 1 else b""
        seen = Seen(
            number=len(self.requests),
            method=message.method,
            target=message.target,
            headers=message.headers,
            body=message.body,
            installation=self.tokens.get(token),
            host=self.host,
        )
        self.requests.append(seen)
        return seen


@dataclass(slots=True)
class Incoming:
    """A request in the eyes of h11."""

    method: bytes = b""
    target: bytes = b""
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""


class ApiConnection(asyncio.Protocol):
    """One connection: one request after the other, never two at once."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._raw = b""
        self._transport: asyncio.Transport | None = None
        self._early = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._raw += data
        try:
            message = understand(self._raw)
        except (h11.RemoteProtocolError, ValueError) as error:
            self._api.wrong.append(f"not exact HTTP upstream: {error}: {self._raw!r}")
            self._close()
            return
        if message is not None:
            self._raw = b""
            self._answer(message)
        elif b"\r\n\r\n" in self._raw and not self._early and self._api.random.random() < 0.02:
            self._early = True
            is_head = self._raw.startswith(b"HEAD ")
            self._send(plain(413, b"early", head_only=is_head))

    def _answer(self, message: Incoming) -> None:
        found = MINT.fullmatch(message.target)
        if found is not None and message.method == b"POST":
            self._send(self._api.mint(found[1]))
            return
        if message.target == DIRECTORY and APP_SIGNATURE in dict(message.headers)[b"Authorization"]:
            self._send(plain(503, b"{}"))
            return
        seen = self._api.record(message)
        if self._early:
            self._early = False
            return
        if self._api.random.random() < self._api.refuses:
            seen.was_refused = True
            self._send(_refusal(seen))
            return
        self._send(self._api.random.choice(ANSWERS)(seen))

    def _send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)
        if b"Connection: close" in data:
            self._close()

    def _close(self) -> None:
        assert self._transport is not None
        self._transport.close()


def understand(raw: bytes) -> Incoming | None:
    """Parse exactly one request, or say that it is not whole yet.

    Raises:
        ValueError: there is more than one reading, or more than one request.
        h11.RemoteProtocolError: h11 does not take it.
    """
    if b"\r\n\r\n" not in raw:
        return None
    line, _, rest = raw.partition(b"\r\n")
    method, target, version = line.split(b" ")
    # h11 takes no bytes above ASCII in a target; the proxy forwards them as they came.
    readable = bytes(byte if byte < 0x80 else ord("x") for byte in target)
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    parser.receive_data(b"%b %b %b\r\n" % (method, readable, version) + rest)
    message = Incoming(method=method, target=target)
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            return None
        if isinstance(event, h11.Request):
            message.headers = list(event.headers.raw_items())
        elif isinstance(event, h11.Data):
            message.body += bytes(event.data)
        else:
            break
    if parser.trailing_data[0]:
        raise ValueError("more than one request")
    _compare(message, raw)
    return message


def _compare(message: Incoming, raw: bytes) -> None:
    """Check that the strict reading is h11's, and that the framing is written once."""
    reading = read_strictly(raw)
    if len(reading.messages) != 1 or reading.rest:
        raise ValueError("not exactly one request by the strict reading")
    strict = reading.messages[0]
    if strict.body != message.body or strict.headers != message.headers:
        raise ValueError("two parsers, two readings")
    for name in (b"host", b"authorization", b"x-icr-api-version"):
        if len(strict.values(name)) != 1 and not strict.target.startswith(b"/app/"):
            raise ValueError(f"not exactly one {name.decode()}")
    if strict.version != b"1":
        raise ValueError("not HTTP/1.1")


def plain(status: int, body: bytes, *, extra: bytes = b"", head_only: bool = False) -> bytes:
    """Write an answer with a length."""
    head = b"HTTP/1.1 %d Status\r\n%bContent-Length: %d\r\n\r\n" % (status, extra, len(body))
    return head if head_only else head + body


def marked(seen: Seen) -> bytes:
    """Write the header by which an answer tells to which request it belongs."""
    return b"X-N: %d\r\n" % seen.number


def _plain(seen: Seen) -> bytes:
    return plain(200, b"{}", extra=marked(seen), head_only=seen.method == b"HEAD")


def _refusal(seen: Seen) -> bytes:
    return plain(401, b"{}", extra=marked(seen), head_only=seen.method == b"HEAD")


def _chunked(seen: Seen) -> bytes:
    head = b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n" % marked(seen)
    return head if seen.method == b"HEAD" else head + b"2\r\n{}\r\n0\r\n\r\n"


def _closing(seen: Seen) -> bytes:
    head = b"HTTP/1.1 200 OK\r\n%bConnection: close\r\n\r\n" % marked(seen)
    return head if seen.method == b"HEAD" else head + b"{}"


def _empty(seen: Seen) -> bytes:
    return b"HTTP/1.1 204 No Content\r\n%b\r\n" % marked(seen)


ANSWERS: tuple[Callable[[Seen], bytes], ...] = (_plain, _plain, _chunked, _closing, _empty)
