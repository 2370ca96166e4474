"""The emulator as a whole: keys, world, socket; starts, stops, and can be started in a test."""

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from icr_proxy.emulator.api.route_table import ROUTES
from icr_proxy.emulator.api.routing import Router
from icr_proxy.emulator.registry.app_keys import AppKeys, new_private_key
from icr_proxy.emulator.registry.world import World
from icr_proxy.emulator.service import Service
from icr_proxy.emulator.settings import DEFAULTS, EmulatorSettings

# Far above what a proxy lets through, so that the proxy's limits are tested and not these.
_MAX_HEAD: Final = 256 * 1024
_MAX_HEADERS: Final = 1000

# Handlers that still run get this long to end; the waiting ones are woken before.
_SHUTDOWN_SECONDS: Final = 1.0


class Emulator:
    """An ICR API on a local socket, with everything it knows within reach."""

    def __init__(
        self,
        settings: EmulatorSettings = DEFAULTS,
        *,
        now: Callable[[], float] = time.time,  # noqa: TID251 - a program of its own
        private_keys: Sequence[str] = (),
    ) -> None:
        """Make an emulator; without `private_keys` (PEM) it generates one, which takes a moment."""
        pems = tuple(private_keys) or (new_private_key(),)
        keys = AppKeys(pems[0])
        for pem in pems[1:]:
            keys.add(pem)
        self.world = World(settings, now=now, keys=keys)
        self._closing = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self._address: tuple[str, int] | None = None

    @property
    def settings(self) -> EmulatorSettings:
        """The settings in force; `world.settings` may be replaced while it runs."""
        return self.world.settings

    @property
    def app_id(self) -> str:
        """The App ID, which goes into `iss`."""
        return self.world.settings.app_id

    @property
    def private_key_pem(self) -> str:
        """The first app key, as it was given or generated (then PKCS#8)."""
        return self.world.keys.private_pem

    @property
    def base_url(self) -> str:
        """Where it listens; `RuntimeError` unless started."""
        if self._address is None:
            raise RuntimeError("the emulator is not started")
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def add_key(self, pem: str) -> str:
        """Activate a further app key, from a private or public PEM; tell its fingerprint."""
        return self.world.keys.add(pem)

    def delete_key(self, fingerprint: str) -> bool:
        """Deactivate an app key; False if it was not active."""
        return self.world.keys.delete(fingerprint)

    async def start(self) -> None:
        """Listen."""
        self._closing.clear()
        service = Service(self.world, router=Router(ROUTES), closing=self._closing)
        server = web.Server(
            service.handle,
            access_log=None,
            auto_decompress=False,  # bodies are hashed as they came
            max_line_size=_MAX_HEAD,
            max_field_size=_MAX_HEAD,
            max_headers=_MAX_HEADERS,
        )
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        self._runner = runner
        settings = self.world.settings
        await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
        host, port = runner.addresses[0][:2]
        self._address = (host, port)

    async def stop(self) -> None:
        """Stop listening and end what still runs; harmless if not started."""
        self._closing.set()
        self._address = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
