"""An API that fails in the way a test orders, and keeps every byte that reached it."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from tests.support.app_fixture import minted, ok

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from typing import SupportsIndex

    Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal, handshake_failure (RFC 8446, 6)
REFUSAL = b'{"statusCode":403,"message":"Access token invalid","error":"Forbidden"}'
MARK = re.compile(rb'"mark":"([a-z0-9-]+)"')
# What happens to a connection before a byte of a request is read from it.
AT_THE_DOOR = frozenset({"refuse", "reset at once", "TLS alert", "hang at once"})
# What is said after the whole request, and whether the connection is reset after it.
SAYS: dict[str, tuple[bytes, str]] = {
    "500": (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "keep"),
    "reset after the request": (b"", "reset"),
    "close after the request": (b"", "close"),
    "reset after a byte of the answer": (b"H", "reset"),
    "close after a byte of the answer": (b"H", "close"),
    "reset after half a head": (b"HTTP/1.1 200 OK\r\nConte", "reset"),
    "go-ahead and reset": (b"HTTP/1.1 100 Continue\r\n\r\n", "reset"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf", "close"),
    "half a chunked body": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "close",
    ),
    "garbage": (b"\0\1\2 nonsense\r\n\r\n", "close"),
    "hang": (b"", "hang"),
    "hang in the head": (b"HTTP/1.1 200 OK\r\nConte", "hang"),
}


class Recorder(asyncio.StreamReader):
    """A reader that keeps what arrived, read or not."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = bytearray()

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        self.raw.extend(data)
        super().feed_data(data)


class FaultyApi:
    """Serves one request after the other; `fate` and what goes with it are for the next one."""

    def __init__(self, *, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        # It keeps the port while nobody listens on it.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port: int = self._place.getsockname()[1]
        # Kept through every change of who serves, so that nobody is refused by accident.
        self._socket = self._listen()
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._ended: list[asyncio.StreamWriter] = []
        self._released = asyncio.Event()
        self.fate = "answer"
        self.doors = 0
        """How many connections still meet a fate of `AT_THE_DOOR`."""
        self.refuse_token = False
        self.raw: list[bytearray] = []
        self.mints = 0
        self.acted: Counter[bytes] = Counter()
        """By mark: requests that arrived as a whole and were not refused for their token."""
        self.said: dict[bytes, int] = {}
        """By mark: the status of an answer that was sent as a whole."""

    @property
    def url(self) -> str:
        scheme, host = ("https", "localhost") if self._tls else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.port}"

    def seen(self, mark: bytes) -> int:
        """Count in how many places of what arrived a mark stands."""
        return sum(raw.count(b'"mark":"%b"' % mark) for raw in self.raw)

    async def order(self, fate: str, *, doors: int, refuse_token: bool) -> None:
        """Have the next request meet its fate."""
        self.fate, self.doors, self.refuse_token = fate, doors, refuse_token
        self._released = asyncio.Event()
        if fate == "refuse":
            self._let_nobody_in()
            self._socket.close()
        elif doors:
            await self._let_in(self._at_the_door, tls=None)

    async def calm(self) -> None:
        """Be as an API should be."""
        is_at_the_door = self.doors > 0
        fate, self.fate, self.doors, self.refuse_token = self.fate, "answer", 0, False
        self._released.set()
        self.raw.clear()
        for writer in self._ended:
            writer.transport.abort()
        self._ended.clear()
        if fate == "refuse":
            self._socket = self._listen()
        if fate == "refuse" or is_at_the_door:
            await self.open()

    def _listen(self) -> socket.socket:
        return socket.create_server(("127.0.0.1", self.port), reuse_port=True)

    async def open(self) -> None:
        await self._let_in(self._serve, tls=self._tls)

    async def _let_in(self, serve: Serve, *, tls: ssl.SSLContext | None) -> None:
        """Serve whoever connects from now on; who has knocked already waits meanwhile."""
        self._let_nobody_in()
        loop = asyncio.get_running_loop()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = loop.create_task(self._until_the_end(serve, reader, writer), name="faulty-api")
            self._serving[task] = writer
            task.add_done_callback(lambda done: self._ended.append(self._serving.pop(done)))

        self._server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(self._record(), accept),
            sock=self._socket.dup(),
            ssl=tls,
        )

    def _let_nobody_in(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        self._let_nobody_in()
        self._socket.close()
        self._place.close()
        tasks = list(self._serving)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for writer in self._ended:
            writer.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)  # until what was aborted is closed

    def _record(self) -> Recorder:
        reader = Recorder()
        self.raw.append(reader.raw)
        return reader

    async def _until_the_end(
        self, serve: Serve, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            await serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            await self._one(reader, writer)

    async def _at_the_door(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.doors -= 1
        fate = self.fate
        if not self.doors:
            await self.open()
        if fate == "reset at once":
            reset(writer)
        elif fate == "TLS alert":
            await reader.read(1)
            writer.write(ALERT)
        else:
            while await reader.read(65536):
                pass

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == b"P" and self.fate == "reset after a byte of the head":
            reset(writer)
            return
        head = first + await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST /app/"):
            self.mints += 1
            writer.write(minted(self.mints))
        elif head.startswith(b"GET"):
            writer.write(ok())
            if self.fate == "idle close":
                writer.close()
        elif self.refuse_token or not await self._fails_early(reader, writer):
            await self._retire(await self._body(reader, head), reader, writer)

    async def _body(self, reader: asyncio.StreamReader, head: bytes) -> bytes:
        """Read the whole body; give the mark in it."""
        if b"chunked" in head:
            body = await reader.readuntil(b"0\r\n\r\n")
        else:
            body = await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split()[0]))
        found = MARK.search(body)
        assert found is not None
        return found[1]

    async def _fails_early(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Meet the fates that do not wait for the whole request."""
        if self.fate == "reset after the head":
            reset(writer)
        elif self.fate == "reset in the body":
            await reader.read(10)
            reset(writer)
        elif self.fate == "does not take the body":
            await self._released.wait()
        elif self.fate in ("early answer", "early answer and close"):
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            if self.fate == "early answer":
                while await reader.read(65536):
                    pass
            writer.close()
        else:
            return False
        return True

    async def _retire(
        self, mark: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.refuse_token:
            self.refuse_token = False
            head = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n"
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(REFUSAL) + REFUSAL)
            return
        self.acted[mark] += 1
        if self.fate not in SAYS:
            self.said[mark] = 200
            answer = ok(b'{"retired":"%b"}' % mark)
            surplus = ok(b'{"retired":"other"}') if self.fate == "a second answer" else b""
            writer.write(answer + surplus)
            if self.fate == "answer and close":
                writer.close()
            return
        says, end = SAYS[self.fate]
        if end == "keep":
            self.said[mark] = 500
        writer.write(says)
        if end == "reset":
            await writer.drain()
            reset(writer)
        elif end == "hang":
            while await reader.read(65536):
                pass
        elif end == "close":
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection without a goodbye: RST, not FIN."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def faulty_api(*, tls: ssl.SSLContext | None) -> AsyncIterator[FaultyApi]:
    api = FaultyApi(tls=tls)
    await api.open()
    try:
        yield api
    finally:
        await api.stop()
