"""One whole proxy in a simulation: the real services, the real protocols, wires in memory."""

from __future__ import annotations

import asyncio
import io
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.clock import Clocks
from icr_proxy.config.models import CircuitConfig
from icr_proxy.runtime.composition import Services, build
from tests.fuzz.simulation import SimulatedLoop, Wire, connect
from tests.support.app_fixture import config_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

API = ("127.0.0.1", 9)
EPOCH = 1_800_000_000.0
PATIENCE = 1000.0  # simulated seconds in which every connection must have come to its end
UNEXPECTED = frozenset({"request.crashed", "library.error", "library.warning", "internal"})


@dataclass(slots=True)
class Caller(asyncio.Protocol):
    """Whoever is on the other end of the proxy's listener; keeps what it hears."""

    heard: bytearray = field(default_factory=bytearray)
    over: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    was_reset: bool = False
    wire: Wire | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Wire)
        self.wire = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.was_reset = exc is not None
        if not self.over.done():
            self.over.set_result(None)

    def say(self, data: bytes) -> None:
        """Send."""
        assert self.wire is not None
        self.wire.write(data)


class Stage:
    """A running proxy and everything about it that must be as before after each conversation."""

    def __init__(self, loop: SimulatedLoop, services: Services, stream: io.BytesIO) -> None:
        self.loop = loop
        self.inbound = services.inbound
        self.pool = services.outbound.pool
        self._stream = stream
        self._free = self.pool.free
        self._tasks = len(asyncio.all_tasks(loop))

    def caller(self) -> Caller:
        """Connect a caller."""
        caller = Caller()
        connect(self.loop, caller, self.inbound.listeners[0].new_connection())
        return caller

    async def end_of(self, caller: Caller) -> bool:
        """Wait until the connection is over at both ends; say whether it is.

        A caller that has left may still have what it asked for done, for a while.
        """
        await asyncio.wait([caller.over], timeout=PATIENCE)
        await self.loop.settled()
        end = self.loop.time() + PATIENCE
        while self.inbound.listeners[0].connections and self.loop.time() < end:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(1.0)  # of the simulation
        await self.loop.settled()
        return caller.over.done()

    def outcomes(self) -> list[dict[str, object]]:
        """Give, and forget, what was logged since the last time."""
        lines = [msgspec.json.decode(line) for line in self._stream.getvalue().splitlines()]
        self._stream.seek(0)
        self._stream.truncate()
        return lines

    def remains(self) -> list[str]:
        """Say what a conversation left behind that is over."""
        counted = {
            "requests in flight": self.inbound.in_flight.count,
            "active connections": self.pool.active,
            "slots of the pool": self._free - self.pool.free,
            "callers' connections": self.inbound.listeners[0].connections,
            "tasks": len(asyncio.all_tasks(self.loop)) - self._tasks,
        }
        left = [f"left behind: {count} {what}" for what, count in counted.items() if count]
        left += self.loop.complaints
        self.loop.complaints.clear()
        return left


@asynccontextmanager
async def stage(api: Callable[[], asyncio.BaseProtocol]) -> AsyncIterator[Stage]:
    """Set up a proxy before an API of which `api` makes one connection each."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    loop.servers[API] = api
    clocks = Clocks(now=lambda: EPOCH + loop.time(), clock=loop.time, random=lambda: 0.5)
    stream = io.BytesIO()
    host, port = API
    upstream = {"circuit": CircuitConfig(failures=0)}  # or it would protect itself from the cases
    config = config_for(f"http://{host}:{port}", upstream=upstream)
    services = build(config, stream=stream, clocks=clocks)
    try:
        yield Stage(loop, services, stream)
    finally:
        await services.credentials.tokens.stop()
        await services.credentials.directory.stop()
        services.outbound.pool.close()
        await loop.settled()
