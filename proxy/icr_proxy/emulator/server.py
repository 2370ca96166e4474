"""The emulator as a whole: it starts, serves each request from head to answer, and stops."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs

from aiohttp import web

from icr_proxy.emulator import http_request, http_response
from icr_proxy.emulator.api import auth
from icr_proxy.emulator.api.calls import ApiResponse, Call, Route, json_answer
from icr_proxy.emulator.api.route_table import ROUTES
from icr_proxy.emulator.api.routing import EndpointRouter, split_target
from icr_proxy.emulator.api_errors import ApiError, error_body
from icr_proxy.emulator.registry.credentials import AppKeys, new_private_key
from icr_proxy.emulator.registry.entities import InsufficientCreditsError
from icr_proxy.emulator.registry.world import World
from icr_proxy.emulator.settings import DEFAULTS, EmulatorSettings, Fault, When
from icr_proxy.emulator.traffic import SeenRequest

_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    request: web.BaseRequest
    seen: SeenRequest
    route: Route | None
    params: dict[str, str]
    query: str
    fault: Fault | None = None

    @property
    def is_control(self) -> bool:
        return self.route is not None and self.route.faults is None


class Service:
    """Answers requests from a world, one route at a time."""

    def __init__(self, world: World, *, router: EndpointRouter, closing: asyncio.Event) -> None:
        self._world = world
        self._router = router
        self._closing = closing

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path, query = split_target(request.raw_path)
        match = self._router.match(request.method, path)
        exchange = _Exchange(
            request=request,
            seen=http_request.record_head(request, at=self._world.now()),
            route=None if match is None else match.route,
            params={} if match is None else match.params,
            query=query,
        )
        if exchange.is_control:
            return await self._answer(exchange)
        return await self._record(self._assign_fault(exchange))

    def _assign_fault(self, exchange: _Exchange) -> _Exchange:
        queue = "requests" if exchange.route is None else exchange.route.faults or "requests"
        fault = self._world.faults.next_for(queue)
        exchange.seen.fault = None if fault is None else fault.kind
        if queue == "mints":
            self._world.mint_attempts[exchange.params.get("installationId", "app")] += 1
        return replace(exchange, fault=fault)

    async def _record(self, exchange: _Exchange) -> web.StreamResponse:
        self._world.traffic.arrived(exchange.seen)
        response = await self._inject_fault(exchange, "head") or await self._answer(exchange)
        # A stream was noted when it began; whoever was cut off got no answer.
        transport = exchange.request.transport
        if not exchange.seen.status and transport is not None and not transport.is_closing():
            self._world.traffic.answered(exchange.seen, status=response.status)
        return response

    async def _answer(self, exchange: _Exchange) -> web.StreamResponse:
        try:
            body = await http_request.read_body(exchange.request, seen=exchange.seen)
        except http_request.BROKEN:
            http_response.disconnect(exchange.request)  # the API does not act on half a request
            return web.Response(status=400)
        await self._wait(0.0 if exchange.is_control else self._world.settings.latency)
        response = await self._inject_fault(exchange, "before")
        if response is not None:
            return response
        answer = self._act(exchange, body)
        await self._wait(answer.delay)
        return await self._inject_fault(exchange, "after") or await self._send(exchange, answer)

    async def _send(self, exchange: _Exchange, answer: ApiResponse) -> web.StreamResponse:
        date = self._world.clock.http_date()
        if answer.stream is None:
            return http_response.respond(answer, date=date)
        self._world.traffic.answered(exchange.seen, status=answer.status)
        return await http_response.send_stream(exchange.request, answer=answer, date=date)

    async def _inject_fault(self, exchange: _Exchange, moment: When) -> web.StreamResponse | None:
        if exchange.fault is None or exchange.fault.when != moment:
            return None
        return await http_response.inject_fault(
            exchange.fault,
            request=exchange.request,
            date=self._world.clock.http_date(),
            closing=self._closing,
        )

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await http_response.pause(seconds, closing=self._closing)

    def _act(self, exchange: _Exchange, body: bytes) -> ApiResponse:
        headers = exchange.request.headers
        call = Call(
            world=self._world,
            seen=exchange.seen,
            params=exchange.params,
            query=parse_qs(exchange.query, keep_blank_values=True) if exchange.query else {},
            body=body,
            # `curl -d` declares a form; the control API is for people, too.
            content_type=_JSON if exchange.is_control else headers.get("Content-Type", ""),
            content_encoding=headers.get("Content-Encoding", ""),
        )
        try:
            return _dispatch(call, route=exchange.route)
        except ApiError as error:
            if error.reason is not None:
                self._world.denied[error.reason] += 1
            return json_answer(error_body(error.status, error.message), status=error.status)
        except InsufficientCreditsError as exc:
            return json_answer(error_body(400, [f"amount exceeds balance: {exc}"]), status=400)


def _dispatch(call: Call, *, route: Route | None) -> ApiResponse:
    if route is None:
        raise ApiError(404, f"Cannot {call.seen.method} {call.seen.target}")
    auth.check_headers(call.seen)
    authenticated = replace(call, token=auth.authenticate(call.world, route=route, seen=call.seen))
    auth.check_scope(route, call=authenticated)
    return route.act(authenticated)


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
        service = Service(self.world, router=EndpointRouter(ROUTES), closing=self._closing)
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
