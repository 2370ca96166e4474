"""Stages for tests: a running proxy, an upstream that follows a script, a caller with raw bytes.

Everything is real: sockets on port 0, the real graph of services, no mocks.
"""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from icr_proxy.clock import SYSTEM_CLOCKS
from icr_proxy.config.inbound_models import ListenerConfig
from icr_proxy.config.models import AdminConfig, AppConfig, Config, TimeoutsConfig, UpstreamConfig
from icr_proxy.redaction import Secret
from icr_proxy.runtime.app import App
from icr_proxy.upstream.dialer import parse_address
from icr_proxy.upstream.interface import UpstreamRequest
from icr_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from icr_proxy.clock import Clocks
    from icr_proxy.emulator.server import Emulator
    from icr_proxy.upstream.interface import UpstreamBody, UpstreamResponse

TAG = "X-ICR-Installation-Id"


@cache
def app_key_pem() -> str:
    """Give one RSA key for the whole run; making one takes a while."""
    return pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def pem_of(key: rsa.RSAPrivateKey) -> str:
    """Write a key as PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@dataclass
class RunningProxy:
    """A started proxy and what it has logged."""

    app: App
    stream: io.BytesIO

    @property
    def url(self) -> str:
        return f"http://{self.app.address}"

    @property
    def admin_url(self) -> str:
        return f"http://{self.app.admin.address}"

    @property
    def port(self) -> int:
        return int(self.app.address.rpartition(":")[2])

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """Give the log lines so far, of one kind if asked."""
        self.app.inbound.dispatcher.flush()
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if event in (None, line["event"])]

    def metric(self, name: str, **labels: str) -> float:
        """Give one sample of the metrics; 0 if it is not there yet."""
        self.app.inbound.dispatcher.flush()
        return (
            self.app.observers.metrics.registry.get_sample_value(f"icr_proxy_{name}", labels) or 0
        )


def config_for(base_url: str, *, app_id: str = "app", key: str = "", **sections: Any) -> Config:
    """Give the configuration of a proxy on free ports."""
    upstream = sections.pop("upstream", {})
    listener = sections.pop("listener", {})
    app = sections.pop("app", None)
    admin = sections.pop("admin", None)
    return Config(
        app=app or AppConfig(id=app_id, private_key=Secret(key or app_key_pem())),
        upstream=UpstreamConfig(base_url=base_url, **upstream),
        listeners=(ListenerConfig(**({"bind": "127.0.0.1:0"} | listener)),),
        admin=admin or AdminConfig(bind="127.0.0.1:0"),
        **sections,
    )


@asynccontextmanager
async def running(config: Config, *, clocks: Clocks = SYSTEM_CLOCKS) -> AsyncIterator[RunningProxy]:
    """Run a proxy inside the test."""
    stream = io.BytesIO()
    async with App(config, stream=stream, clocks=clocks) as app:
        yield RunningProxy(app=app, stream=stream)


@asynccontextmanager
async def proxy_before(emulator: Emulator, **sections: Any) -> AsyncIterator[RunningProxy]:
    """Run a proxy in front of an emulator."""
    config = config_for(
        emulator.base_url, app_id=emulator.app_id, key=emulator.private_key_pem, **sections
    )
    async with running(config) as proxy:
        yield proxy


# -- an upstream that follows a script ------------------------------------------------------------


@dataclass
class Visit:
    """One connection to the scripted upstream."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> bytes:
        """Read a request up to the end of its head."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Break the connection without a goodbye: RST, not FIN."""
        linger = struct.pack("ii", 1, 0)
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


@dataclass
class ScriptedUpstream:
    """An API that does exactly what a test says; mints are answered without asking the script."""

    url: str = ""
    heads: list[bytes] = field(default_factory=list)
    mints: int = 0
    visits: int = 0


MINTED = b'{"token":"crs_%048d","expiresAt":"2999-01-01T00:00:00Z"}'


def minted(number: int) -> bytes:
    """Answer a mint with a token that tells which it was."""
    return ok(MINTED % number)


@asynccontextmanager
async def scripted_upstream(
    script: Callable[[Visit, bytes], Awaitable[None]],
    *,
    tls: ssl.SSLContext | None = None,
    mint: Callable[[int], bytes] = minted,
) -> AsyncIterator[ScriptedUpstream]:
    """Serve: `script` is called with each request head that is not a mint, `mint` with its number.

    The connection is closed when the script raises; otherwise the next head is read from it.
    """
    upstream = ScriptedUpstream()
    serving: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving[asyncio.current_task()] = writer
        upstream.visits += 1
        visit = Visit(upstream.visits, reader, writer)
        try:
            while not writer.is_closing():
                head = await visit.head()
                if head.startswith(b"POST /app/"):
                    upstream.mints += 1
                    await visit.say(mint(upstream.mints))
                    continue
                upstream.heads.append(head)
                await script(visit, head)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass  # the test is over; `asyncio.streams` trips over a cancelled task
        finally:
            writer.close()
            del serving[asyncio.current_task()]

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
    upstream.url = f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        for task, writer in list(serving.items()):
            writer.transport.abort()
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await asyncio.sleep(0)  # what was aborted is closed in the next turn of the loop


def ok(body: bytes = b"{}", *, headers: bytes = b"") -> bytes:
    """Write a plain 200 answer."""
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(body), body)


# -- a caller with raw bytes ----------------------------------------------------------------------


@dataclass
class RawAnswer:
    """What came back, byte for byte."""

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """Give all values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def problem(self) -> dict[str, Any]:
        """Give the problem body, after checking that it has the shape of every refusal."""
        found: dict[str, Any] = json.loads(self.body)
        code = self.values(b"X-ICR-Proxy-Error")
        assert code == [found["code"].encode()]
        assert self.values(b"Content-Type") == [b"application/problem+json"]
        assert found["statusCode"] == found["status"] == self.status
        assert found["message"] == found["detail"]
        assert set(found) - {"traceId"} == {
            "type", "title", "status", "detail", "code", "requestId", "statusCode", "message",
            "error",
        }  # fmt: skip
        return found


async def call(port: int, request: bytes) -> RawAnswer:
    """Send bytes on a new connection and read one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await read_answer(reader, head_only=request.startswith(b"HEAD"))
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> RawAnswer:
    """Read one answer; raises IncompleteReadError when it is cut off."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head[:-4].split(b"\r\n")
    _, status, reason = line.split(b" ", 2)
    headers = [(name, value) for name, _, value in (x.partition(b": ") for x in lines)]
    answer = RawAnswer(status=int(status), reason=reason, headers=headers, body=b"")
    if head_only or answer.status in (204, 304):
        return answer
    if answer.values(b"Transfer-Encoding") == [b"chunked"]:
        pieces = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            pieces.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        answer.body = b"".join(pieces)
    elif length := answer.values(b"Content-Length"):
        answer.body = await reader.readexactly(int(length[0]))
    else:
        answer.body = await reader.read()
    return answer


def request_head(
    method: str = "GET", target: str = "/projects", *, tag: str | None = "inst-1", extra: str = ""
) -> bytes:
    """Write the head of a request that should pass; `extra` holds whole lines."""
    tagged = f"{TAG}: {tag}\r\n" if tag is not None else ""
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{tagged}{extra}\r\n".encode("latin-1")


# -- the engine towards the upstream, without a proxy around it -----------------------------------


class Parts:
    """A request body that follows a script: bytes are given, events awaited, errors raised."""

    def __init__(self, *parts: bytes | asyncio.Event | Exception) -> None:
        self._parts = list(parts)
        self.taken = 0
        """Bytes of the body that were taken so far."""

    async def read(self) -> bytes:
        while self._parts:
            part = self._parts.pop(0)
            if isinstance(part, Exception):
                raise part
            if isinstance(part, bytes):
                self.taken += len(part)
                return part
            await part.wait()
        return b""


@dataclass
class Clock:
    """Time that moves when a test says so."""

    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


class Noted:
    """A `pool.PoolWatcher` that keeps what it is told."""

    def __init__(self) -> None:
        self.connects: list[str] = []
        self.closes: list[str] = []
        self.waits: list[str] = []

    def connected(self, result: str) -> None:
        self.connects.append(result)

    def closed(self, reason: str) -> None:
        self.closes.append(reason)

    def waited(self, result: str) -> None:
        self.waits.append(result)


@contextmanager
def pool_to(
    url: str,
    *,
    connections: int = 10,
    ca_file: Path | None = None,
    now: Callable[[], float] = time.monotonic,
    watcher: Noted | None = None,
    max_age: float = 0.0,
    random: Callable[[], float] = lambda: 0.0,
    **timeouts: float,
) -> Iterator[Pool]:
    """Give connections to an upstream, and check at the end that every one came back."""
    pool = Pool(
        parse_address(url, ca_file=ca_file),
        timeouts=TimeoutsConfig(**timeouts),
        connections=connections,
        now=now,
        watcher=watcher or Noted(),
        max_age=max_age,
        random=random,
    )
    yield pool
    assert pool.active == 0, "a connection was not given back"
    assert pool.free == connections, "a slot leaked"
    assert pool.waiting == 0, "somebody waits for ever"
    pool.close()


def upstream_request(
    method: str = "GET",
    *,
    body: UpstreamBody | None = None,
    length: int | None = None,
    is_write: bool = False,
    fresh: bool = False,
) -> UpstreamRequest:
    """Give a request as `forwarder` makes them."""
    return UpstreamRequest(
        method=method,
        target=b"/x",
        headers=[(b"Host", b"api")],
        body=body,
        length=length,
        is_write=is_write,
        fresh=fresh,
    )


async def whole(response: UpstreamResponse) -> bytes:
    """Read an answer to its end and let it go."""
    body = b""
    try:
        while data := await response.read():
            body += data
    finally:
        response.close()
    return body
