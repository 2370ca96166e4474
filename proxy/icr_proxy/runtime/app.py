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
from icr_proxy.runtime.composition import build
from icr_proxy.runtime.file_permissions import exposed_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from icr_proxy.config.models import Config
    from icr_proxy.observability.log import ByteStream
    from icr_proxy.server.listener import Listener

SETTLE_SECONDS = 0.2  # at the end, for work on which no request and no record depends


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
        services = build(config, stream=stream, clocks=clocks)
        self.observers = services.observers
        self._log = services.observers.log
        self.outbound = services.outbound
        self.credentials = services.credentials
        self.inbound = services.inbound
        self.state = "starting"
        """One of `starting`, `ready`, `draining`, `stopped`."""
        self._now = clocks.now
        self._started_at = clocks.now()
        self._drain_end = 0.0
        self._admin_token = AdminToken(config.admin.token_file)
        self.admin = build_admin(
            config,
            observers=self.observers,
            tokens=self.credentials.tokens,
            passed=self.inbound.activation.claim,
            state=lambda: self.state,
            status=self._status,
            token=self._admin_token,
            current=lambda: self.config,
            stop=on_quit,
            connections=port_connections,
        )
        self.webhooks: Listener | None = build_webhooks(
            config,
            observers=self.observers,
            tokens=self.credentials.tokens,
            passed=self.inbound.activation.claim,
            connections=port_connections,
        )
        self._revoker = Revoker(
            upstream=self.outbound.pool,
            headers=app_headers(config),
            timeout=config.tokens.mint_timeout,
            connections=config.upstream.connections,
        )

    def _status(self) -> dict[str, object]:
        """Describe the proxy for `/status`, with the outcomes of this moment."""
        self.inbound.dispatcher.flush()
        return describe_status(
            self.config,
            state=self.state,
            started_at=self._started_at,
            now=self._now(),
            listeners=self.inbound.listeners,
            in_flight=self.inbound.in_flight.count,
            pool=self.outbound.pool,
            circuit=self.outbound.circuit,
            keys=self.credentials.keys,
            clock_skew=self.credentials.app_client.skew,
            tokens=self.credentials.tokens,
            replicas=self.credentials.replicas,
            audit=self.observers.audit,
            feed=self.observers.feed,
        )

    @property
    def _sideports(self) -> list[Listener]:
        return [self.admin, *([self.webhooks] if self.webhooks is not None else [])]

    @property
    def _console_url(self) -> str | None:
        """The URL of the console, if there is one and it has a TCP address."""
        place = addresses.host_and_port(self.admin.address)
        if self.observers.feed is None or place is None:
            return None
        return f"http://{bracketed(EVERYWHERE.get(place[0], place[0]))}:{place[1]}/"

    @property
    def address(self) -> str:
        """`host:port` of the first listener, as bound."""
        return self.inbound.listeners[0].address

    async def start(self) -> None:
        """Open every socket, the admin port first so that probes can watch.

        Raises:
            BindError: an address cannot be had; whatever was opened is closed again.
            StartError: the directory of the audit trail, or the file for the admin token, cannot be
                used.
        """
        audit, listeners = self.observers.audit, self.inbound.listeners
        tokens, replicas = self.credentials.tokens, self.credentials.replicas
        try:
            if audit is not None:
                await audit.start(self.config)
            self._admin_token.issue()
            for listener in (*self._sideports, *listeners):
                await listener.open()
            if replicas is not None:
                replicas.start(forget=tokens.invalidate_locally)
        except ProxyError:
            await self.stop()
            raise
        for listener in listeners:
            self.outbound.own_addresses.add(listener.addresses)
        self.state = "ready"
        self._log.info(
            "proxy.ready",
            listeners=[place for listener in listeners for place in listener.addresses],
            admin=self.admin.address,
            console=self._console_url,
            webhooks=self.webhooks.address if self.webhooks is not None else None,
            upstream=self.config.upstream.base_url,
            read_only=self.config.policy.read_only,
        )
        self._log_warnings()

    async def dry_run(self) -> list[str]:
        """Try everything that `start` needs, serve nobody, and leave nothing behind.

        Returns warnings: what could not be tried, and what a running proxy has in use.

        Raises:
            BindError: an address cannot be had.
            StartError: `start` would raise it.
        """
        is_running = await asyncio.to_thread(is_proxy, self.config.admin.bind)
        warnings: list[str] = []

        def note_in_use(error: ProxyError) -> None:
            if not is_running:
                raise error
            warnings.append(f"{error.detail} (Taken for the proxy's that runs at admin.bind.)")

        self._admin_token.issue(is_trial=True)
        try:
            if self.observers.audit is not None:
                await asyncio.to_thread(self.observers.audit.check)
        except DirectoryInUseError as error:
            note_in_use(error)
        with ExitStack() as reserved:
            for listener in (*self._sideports, *self.inbound.listeners):
                if addresses.systemd_name(listener.address) is not None:
                    warnings.append(f"{listener.address} is for systemd to open: not tried")
                    continue
                try:
                    for each in await listener.reserve():
                        reserved.callback(each.close)
                except AddressInUseError as error:
                    note_in_use(error)
        return warnings

    def _log_warnings(self) -> None:
        """Log settings that work, but not as safely as they should."""
        config, log = self.config, self._log
        in_the_open = keys_in_the_open(config.listeners, config.callers)
        if in_the_open:
            log.warning("callers.unencrypted", listeners=list(in_the_open))
        for found in exposed_secrets(config):
            log.warning(
                "secret.exposed",
                key=found.key,
                file=str(found.path),
                mode=found.octal_mode,
                readers=found.readers,
            )
        unused = unused_proxies(self._environ, base_url=config.upstream.base_url)
        if unused:
            log.warning("upstream.egress_proxy_unused", variables=list(unused))

    def reload(self, load: Callable[[], Config]) -> None:
        """Apply settings that can change without a restart; a bad configuration changes nothing."""
        try:
            new = load()
            config = effective(self.config, new)
        except ConfigError as error:
            self._log.error("config.rejected", problems=list(error.problems))
            return
        audit, waiting = self.observers.audit, restart_needed(self.config, new)
        self.config = config
        self.observers.threshold.level = config.logs.level
        self.observers.sampling.reads = config.logs.sample_reads
        for handler, listener in zip(self.inbound.handlers, config.listeners, strict=True):
            handler.rules = build_rules(config, listener)
        self.credentials.app_client.headers = self._revoker.headers = app_headers(config)
        if audit is not None:
            audit.record_reload(config, waiting=waiting)
        self._log.info("config.reloaded", restart_needed_for=list(waiting))

    async def drain(self) -> bool:
        """Stop being ready and finish requests in flight; return whether all were finished."""
        shutdown, feed = self.config.shutdown, self.observers.feed
        in_flight, listeners = self.inbound.in_flight, self.inbound.listeners
        self.state = "draining"
        in_flight.closing = True
        if feed is not None:
            feed.end("draining")
        self._log.info("proxy.draining", in_flight=in_flight.count)
        await asyncio.sleep(shutdown.min_drain)
        in_flight.shut = True
        for listener in listeners:
            listener.stop_accepting()
        end = self._drain_end = asyncio.get_running_loop().time() + shutdown.max_drain
        finished = True
        try:
            async with asyncio.timeout_at(end):
                await in_flight.until_idle()
                for listener in listeners:
                    await listener.until_sent()
        except TimeoutError:
            unsent = sum(listener.unsent for listener in listeners)
            self._log.warning("proxy.cut_off", in_flight=in_flight.count or unsent)
            finished = False
        with suppress(TimeoutError):  # these clients have their responses; nothing is cut off
            async with asyncio.timeout_at(end):
                for listener in listeners:
                    await listener.until_left()
        if self.config.tokens.revoke_on_exit:
            await self._revoke(end)
        return finished

    async def _revoke(self, end: float) -> None:
        """Revoke the tokens of this process, until the event loop's clock says `end`."""
        tokens = self.credentials.tokens
        await tokens.stop()  # so that no token is minted after this
        result = await self._revoker.revoke(
            tokens.issued.drain(now=self._now()),
            seconds=end - asyncio.get_running_loop().time(),
        )
        say = self._log.warning if result.failed or result.left else self._log.info
        say("tokens.revoked", revoked=result.revoked, failed=result.failed, left=result.left)

    async def stop(self, *, hurry: bool = False) -> None:
        """Close everything at once; requests in flight break off.

        Records of the audit trail are written in any case. Spans may be sent until the end of the
        longest drain, unless there is a hurry.
        """
        observers, credentials, listeners = self.observers, self.credentials, self.inbound.listeners
        clock = asyncio.get_running_loop().time
        self.state = "stopped"
        self.inbound.in_flight.closing = True
        if observers.feed is not None:
            observers.feed.end("stopped")
        self._admin_token.withdraw()
        await asyncio.gather(*(listener.close() for listener in listeners))
        self.inbound.dispatcher.flush()
        with suppress(TimeoutError):  # the audit records have to be written yet
            async with asyncio.timeout(SETTLE_SECONDS):
                await credentials.tokens.stop()
                await credentials.directory.stop()
                if credentials.replicas is not None:
                    await credentials.replicas.stop()
        self.outbound.pool.close()
        if observers.audit is not None:
            await observers.audit.close()
        await asyncio.gather(*(listener.close() for listener in self._sideports))
        if observers.spans is not None:  # it blocks while the collector takes the last spans
            until = max(0.0 if hurry else self._drain_end, clock() + SETTLE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await asyncio.to_thread(observers.spans.close)
        self._log.info("proxy.stopped")

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
