"""The life of one proxy: start, reload, drain, stop."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from icr_proxy.admin.auth import AdminToken
from icr_proxy.admin.client import EVERYWHERE, is_proxy
from icr_proxy.admin.status import describe_status
from icr_proxy.clock import SYSTEM_CLOCKS, Clocks
from icr_proxy.config.loader import effective, restart_needed
from icr_proxy.config.rules import keys_in_the_open
from icr_proxy.credentials.token_exchange import Revoker
from icr_proxy.errors import AddressInUseError, ConfigError, DirectoryInUseError, ProxyError
from icr_proxy.forwarding.listener_rules import build_rules
from icr_proxy.net import addresses
from icr_proxy.net.addresses import bracketed
from icr_proxy.net.descriptors import PORT_CONNECTIONS
from icr_proxy.net.egress_proxy import unused_proxies
from icr_proxy.runtime.build_inbound import build_admin, build_webhooks
from icr_proxy.runtime.build_outbound import app_headers
from icr_proxy.runtime.composition import Parts, build
from icr_proxy.runtime.file_permissions import exposed_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from icr_proxy.config.models import Config
    from icr_proxy.observability.log import ByteStream
    from icr_proxy.server.listener import Listener

SETTLE_SECONDS = 0.2  # at the end, for what no request and no record depends on


class App:
    """A proxy that can be started and stopped, as a program and inside a test."""

    def __init__(
        self,
        config: Config,
        *,
        stream: ByteStream,
        clocks: Clocks = SYSTEM_CLOCKS,
        on_quit: Callable[[], bool] = lambda: False,
        environ: Mapping[str, str] = os.environ,
        port_connections: int = PORT_CONNECTIONS,
    ) -> None:
        """Build everything from `config`; log to `stream`.

        `port_connections` are allowed on each port beside the listeners.
        `on_quit` is called when the admin port is told to quit, and says whether that is new.

        Raises:
            StartError: a file the configuration names cannot be used.
        """
        self.config = config
        self._environ = environ
        self.parts: Parts = build(config, stream=stream, clocks=clocks)
        self.state = "starting"
        """One of `starting`, `ready`, `draining`, `stopped`."""
        self._now = clocks.now
        self._started_at = clocks.now()
        self._drain_end = 0.0
        self._admin_token = AdminToken(config.admin.token_file)
        self.admin = build_admin(
            config,
            self.parts,
            state=lambda: self.state,
            status=self._status,
            token=self._admin_token,
            current=lambda: self.config,
            stop=on_quit,
            connections=port_connections,
        )
        self.webhooks: Listener | None = build_webhooks(
            config, self.parts, connections=port_connections
        )
        self._revoker = Revoker(
            upstream=self.parts.pool,
            headers=app_headers(config),
            timeout=config.tokens.mint_timeout,
            connections=config.upstream.connections,
        )

    def _status(self) -> dict[str, object]:
        """Describe what is, with what has just happened."""
        self.parts.gathering.flush()
        return describe_status(
            self.parts,
            self.config,
            state=self.state,
            started_at=self._started_at,
            now=self._now(),
        )

    @property
    def _sideports(self) -> list[Listener]:
        return [self.admin, *([self.webhooks] if self.webhooks is not None else [])]

    @property
    def _console_url(self) -> str | None:
        """Where to point a browser, if there is a console that one can reach."""
        place = addresses.host_and_port(self.admin.address)
        if self.parts.feed is None or place is None:
            return None
        return f"http://{bracketed(EVERYWHERE.get(place[0], place[0]))}:{place[1]}/"

    @property
    def address(self) -> str:
        """`host:port` of the first listener, as bound."""
        return self.parts.listeners[0].address

    async def start(self) -> None:
        """Open every socket, the admin port first so that probes can watch.

        Raises:
            BindError: an address cannot be had; whatever was opened is closed again.
            StartError: the directory of the audit trail, or the file for the admin token, cannot be
                used.
        """
        auditing = self.parts.auditing
        try:
            if auditing is not None:
                await auditing.start(self.config)
            self._admin_token.issue()
            for listener in (*self._sideports, *self.parts.listeners):
                await listener.open()
            if self.parts.replicas is not None:
                self.parts.replicas.start(forget=self.parts.tokens.invalidate_locally)
        except ProxyError:
            await self.stop()
            raise
        for listener in self.parts.listeners:
            self.parts.own_places.add(listener.addresses)
        self.state = "ready"
        parts = self.parts
        parts.log.info(
            "proxy.ready",
            listeners=[place for listener in parts.listeners for place in listener.addresses],
            admin=self.admin.address,
            console=self._console_url,
            webhooks=self.webhooks.address if self.webhooks is not None else None,
            upstream=self.config.upstream.base_url,
            read_only=self.config.policy.read_only,
        )
        self._warn()

    async def dry_run(self) -> list[str]:
        """Try everything that `start` needs, serve nobody, and leave nothing behind.

        Gives what could not be tried, and what is in use by a proxy that is running already.

        Raises:
            BindError: an address cannot be had.
            StartError: `start` would raise it.
        """
        is_running = await asyncio.to_thread(is_proxy, self.config.admin.bind)
        warnings: list[str] = []

        def taken(error: ProxyError) -> None:
            if not is_running:
                raise error
            warnings.append(f"{error.detail} (Taken for the proxy's that runs at admin.bind.)")

        self._admin_token.try_to_issue()
        try:
            if self.parts.auditing is not None:
                await asyncio.to_thread(self.parts.auditing.inspect)
        except DirectoryInUseError as error:
            taken(error)
        with ExitStack() as reserved:
            for listener in (*self._sideports, *self.parts.listeners):
                if addresses.systemd_name(listener.address) is not None:
                    warnings.append(f"{listener.address} is for systemd to open: not tried")
                    continue
                try:
                    for each in await listener.reserve():
                        reserved.callback(each.close)
                except AddressInUseError as error:
                    taken(error)
        return warnings

    def _warn(self) -> None:
        """Tell what serves, but not as it should."""
        log, config = self.parts.log, self.config
        in_the_open = keys_in_the_open(config.listeners, config.callers)
        if in_the_open:
            log.warning("callers.unencrypted", listeners=list(in_the_open))
        for found in exposed_secrets(config):
            log.warning(
                "secret.exposed",
                key=found.key,
                file=str(found.path),
                mode=found.shown_mode,
                readers=found.readers,
            )
        unused = unused_proxies(self._environ, base_url=config.upstream.base_url)
        if unused:
            log.warning("upstream.egress_proxy_unused", variables=list(unused))

    def reload(self, load: Callable[[], Config]) -> None:
        """Take over what can change without a restart; a bad configuration changes nothing."""
        log = self.parts.log
        try:
            new = load()
            config = effective(self.config, new)
        except ConfigError as error:
            log.error("config.rejected", problems=list(error.problems))  # noqa: TRY400  # all is said
            return
        waiting = restart_needed(self.config, new)
        self.config = config
        self.parts.threshold.level = config.logs.level
        self.parts.sampling.reads = config.logs.sample_reads
        for handler, listener in zip(self.parts.handlers, config.listeners, strict=True):
            handler.rules = build_rules(config, listener)
        self.parts.calls.headers = self._revoker.headers = app_headers(config)
        if self.parts.auditing is not None:
            self.parts.auditing.reloaded(config, waiting=waiting)
        log.info("config.reloaded", restart_needed_for=list(waiting))

    async def drain(self) -> bool:
        """Stop being ready, finish what is in flight, and say whether all of it was finished."""
        parts, shutdown = self.parts, self.config.shutdown
        self.state = "draining"
        parts.in_flight.closing = True
        if parts.feed is not None:
            parts.feed.end("draining")
        parts.log.info("proxy.draining", in_flight=parts.in_flight.count)
        await asyncio.sleep(shutdown.min_drain)
        parts.in_flight.shut = True
        for listener in parts.listeners:
            listener.stop_accepting()
        end = self._drain_end = asyncio.get_running_loop().time() + shutdown.max_drain
        finished = True
        try:
            async with asyncio.timeout_at(end):
                await parts.in_flight.until_idle()
                for listener in parts.listeners:
                    await listener.until_sent()
        except TimeoutError:
            unsent = sum(listener.unsent for listener in parts.listeners)
            parts.log.warning("proxy.cut_off", in_flight=parts.in_flight.count or unsent)
            finished = False
        with suppress(TimeoutError):  # they have their answers; nothing of them is cut off
            async with asyncio.timeout_at(end):
                for listener in parts.listeners:
                    await listener.until_left()
        if self.config.tokens.revoke_on_exit:
            await self._revoke(end)
        return finished

    async def _revoke(self, end: float) -> None:
        """Kill the tokens we made, until the event loop's clock says `end`."""
        parts = self.parts
        await parts.tokens.stop()  # so that none is made after we have looked
        result = await self._revoker.revoke(
            parts.tokens.issued.drain(now=self._now()),
            seconds=end - asyncio.get_running_loop().time(),
        )
        say = parts.log.warning if result.failed or result.left else parts.log.info
        say("tokens.revoked", revoked=result.revoked, failed=result.failed, left=result.left)

    async def stop(self, *, hurry: bool = False) -> None:
        """Close everything at once; what is still in flight breaks off.

        Records of the audit trail are written in any case. Spans get what is left of the longest
        drain, unless there is a hurry.
        """
        parts, clock = self.parts, asyncio.get_running_loop().time
        self.state = "stopped"
        parts.in_flight.closing = True
        if parts.feed is not None:
            parts.feed.end("stopped")
        self._admin_token.withdraw()
        await asyncio.gather(*(listener.close() for listener in parts.listeners))
        parts.gathering.flush()
        with suppress(TimeoutError):  # the process ends soon, and the records are not written yet
            async with asyncio.timeout(SETTLE_SECONDS):
                await parts.tokens.stop()
                await parts.directory.stop()
                if parts.replicas is not None:
                    await parts.replicas.stop()
        parts.pool.close()
        if parts.auditing is not None:
            await parts.auditing.close()
        await asyncio.gather(*(listener.close() for listener in self._sideports))
        if parts.spans is not None:  # which blocks while the collector takes what is left
            until = max(0.0 if hurry else self._drain_end, clock() + SETTLE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await asyncio.to_thread(parts.spans.close)
        parts.log.info("proxy.stopped")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
