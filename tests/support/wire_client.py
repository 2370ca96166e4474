"""Raw bytes in, raw bytes out: a caller without manners before an API that writes all down."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icr_proxy.config.inbound_models import LimitsConfig
from tests.support.app_fixture import (
    RunningProxy,
    Visit,
    config_for,
    ok,
    running,
    scripted_upstream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

OURS = {b"host", b"authorization", b"x-icr-api-version", b"via", b"x-request-id", b"traceparent"}
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
QUICK = LimitsConfig(head_timeout=0.3, body_timeout=0.3, idle_timeout=5)


@dataclass
class Received:
    """One request as it reached the API."""

    line: bytes
    lines: list[bytes]
    """Header lines that came from the caller or are about its body."""
    body: bytes
    raw: bytes


@dataclass
class Wire:
    """A proxy, and what came out of it on the other side."""

    proxy: RunningProxy
    received: list[Received] = field(default_factory=list)
    visits: set[int] = field(default_factory=set)

    async def say(self, *packets: bytes) -> bytes:
        """Send on a new connection, give everything that comes back until it ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        try:
            async with asyncio.timeout(5):
                for packet in packets:
                    writer.write(packet)
                    await asyncio.sleep(0)
                return await reader.read()
        finally:
            writer.close()

    @property
    def targets(self) -> list[bytes]:
        return [each.line.split(b" ")[1] for each in self.received]


def statuses(answers: bytes) -> list[int]:
    """Give the status of each answer in these bytes; bodies must hold no such line."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


async def read_request(visit: Visit, head: bytes) -> bytes:
    """Read the body that belongs to a head, by the one framing that it may have."""
    lengths = LENGTH.findall(head)
    if b"transfer-encoding" not in head.lower():
        assert len(lengths) <= 1
        return await visit.reader.readexactly(int(lengths[0]) if lengths else 0)
    assert not lengths
    body = b""
    while size := int(await visit.reader.readuntil(b"\r\n"), 16):
        body += (await visit.reader.readexactly(size + 2))[:-2]
    assert await visit.reader.readexactly(2) == b"\r\n"
    return body


async def plainly(visit: Visit, received: Received) -> None:
    """Answer with the target."""
    await visit.say(ok(received.line.split(b" ")[1]))


@asynccontextmanager
async def wire(
    answer: Callable[[Visit, Received], Awaitable[None]] = plainly,
    *,
    limits: LimitsConfig = QUICK,
    **sections: Any,
) -> AsyncIterator[Wire]:
    """Run both."""

    async def script(visit: Visit, head: bytes) -> None:
        body = await read_request(visit, head)
        line, *lines = head[:-4].split(b"\r\n")
        theirs = [each for each in lines if each.partition(b":")[0].lower() not in OURS]
        received = Received(line, theirs, body, head)
        found.received.append(received)
        found.visits.add(visit.number)
        await answer(visit, received)

    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, limits=limits, **sections)) as proxy,
    ):
        found = Wire(proxy)
        yield found
