"""Runs the webhook: certificate, socket, and what has to be seen to from time to time."""

from __future__ import annotations

import asyncio
import logging
import signal
import tempfile
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from icr_proxy.backoff import Backoff
from icr_proxy.errors import StartError
from icr_proxy.injector.authority import Authority
from icr_proxy.injector.webhook import LIMITS, AdmissionWebhook
from icr_proxy.net.descriptors import connections_that_fit, raise_limit
from icr_proxy.net.tls import ReloadingSslContext
from icr_proxy.observability.log import where
from icr_proxy.runtime.watchers import ExhaustionReports, TlsReports
from icr_proxy.server.limits import ConnectionLimit
from icr_proxy.server.listener import Listener, ListenerOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from icr_proxy.config.inbound_models import TlsConfig
    from icr_proxy.injector.authority import Cluster
    from icr_proxy.injector.sidecar import Defaults
    from icr_proxy.observability.log import Log

# How often the bundle is looked at. Somebody may replace the webhook object, and until our
# authority is put back no pod that asks for a proxy can start. A look is one GET.
LOOK_SECONDS = 5.0
RETRY_SECONDS = 1.0  # after a failure; then twice as long each time, up to the above
CLOSE_SECONDS = 0.9  # to close everything after the drain, before the process ends regardless
NO_TAG = "X-ICR-Installation-Id"  # requests here have none; a name is needed for mistakes in one


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How the webhook is reached, as the flags say it."""

    bind: str
    tls: TlsConfig | None = None
    """Files that somebody else keeps; or else what follows."""
    names: tuple[str, ...] = ()
    state: Path | None = None
    ca_file: Path | None = None
    webhook: str | None = None
    """Which webhook configuration is to believe our authority; by `authority`."""
    cluster: Cluster | None = None
    drain_seconds: float = 3.0
    look_seconds: float = LOOK_SECONDS


class Injector:
    """The webhook, from start to stop."""

    def __init__(
        self, setting: Setting, defaults: Defaults, *, log: Log, now: Callable[[], float]
    ) -> None:
        self._setting = setting
        self._defaults = defaults
        self._log = log
        self._now = now
        self._published = setting.webhook is None
        self._is_ready_told = False
        self._pem: bytes | None = None
        self._stack = AsyncExitStack()
        self.address = setting.bind
        """As bound: a port 0 is replaced by the real one."""

    async def __aenter__(self) -> Self:
        """Start. Raises StartError."""
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        setting, authority = self._setting, None
        tls = setting.tls
        if tls is None:
            folder = setting.state or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="icr-injector-"))
            )
            authority = Authority(folder, setting.names, now=self._now, copy=setting.ca_file)
            tls = authority.tls
            self._pem = authority.pem
        listener = self._listener(tls)
        await listener.open()
        stack.push_async_callback(listener.close)
        self.address = listener.address
        self._log.info("injector.listening", listener=self.address)
        if self._published:
            self._tell_ready()
        if authority is not None:
            task = asyncio.get_running_loop().create_task(self._watch(authority), name="injector")
            stack.push_async_callback(_ended, task)

    def _tell_ready(self) -> None:
        """Log it, the first time; the line has the authority, so that it can be had from there."""
        if self._is_ready_told:
            return
        self._is_ready_told = True
        self._log.info(
            "injector.ready",
            listener=self.address,
            mode=self._defaults.mode,
            on_conflict=self._defaults.on_conflict,
            ca=self._pem.decode() if self._pem else None,
        )

    def _listener(self, tls: TlsConfig) -> Listener:
        bind = self._setting.bind
        reports = TlsReports(log=self._log, listener=bind, now=self._now)
        webhook = AdmissionWebhook(
            self._defaults, pem=self._pem, ready=lambda: self._published, log=self._log
        )
        return Listener(
            bind,
            respond=webhook,
            refuse=webhook.respond_error,
            limits=LIMITS,
            tag=NO_TAG,
            logger=logging.Logger("injector"),  # noqa: LOG001  # not in the global tree
            door=ListenerOptions(
                tls=ReloadingSslContext(tls, key="tls", watcher=reports),
                exhausted=ExhaustionReports(log=self._log),
            ),
            places=ConnectionLimit(connections_that_fit(LIMITS.connections)),
            evicts=True,
        )

    async def _watch(self, authority: Authority) -> None:
        """Renew the certificate before it ends; keep our authority in the webhook's bundle."""
        failures = 0
        while True:
            failures = 0 if await self._look(authority) else failures + 1
            await asyncio.sleep(pause(failures, look_seconds=self._setting.look_seconds))

    async def _look(self, authority: Authority) -> bool:
        """Do it once; say if all is well."""
        try:
            authority.renew_if_due()
            await self._publish(authority)
        except StartError as error:
            self._log.error("injector.failing", detail=error.detail)
            return False
        except Exception as error:  # noqa: BLE001  # this task's one place: it tries again
            self._log.error("injector.crashed", **where(error))
            return False
        return True

    async def _publish(self, authority: Authority) -> None:
        cluster, webhook = self._setting.cluster, self._setting.webhook
        if cluster is None or webhook is None:
            return
        is_new = await asyncio.to_thread(
            cluster.publish,
            webhook,
            authority.pem,
            now=self._now(),
            on_missing=self._on_missing,
        )
        self._published = True
        if is_new:
            self._log.info("injector.published", webhook=webhook)
        self._tell_ready()

    def _on_missing(self) -> None:
        """Be not ready, so that the API server calls another injector (called in a thread)."""
        self._published = False


def pause(failures: int, *, look_seconds: float) -> float:
    """Give the seconds until the next look, after so many failures in a row."""
    if failures == 0:
        return look_seconds
    return Backoff(first=RETRY_SECONDS, most=look_seconds).pause(failures)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def serve(
    setting: Setting,
    defaults: Defaults,
    *,
    log: Log,
    now: Callable[[], float],
    leave_after: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Serve until SIGTERM or SIGINT, and a moment more: Kubernetes learns late who has left.

    `leave_after` is to end the process after so many seconds, whatever hangs.
    """
    raise_limit()
    loop, stopped, hurry = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if stopped.is_set():
            hurry.set()
        seconds = 0.0 if stopped.is_set() else setting.drain_seconds
        leave_after(seconds + CLOSE_SECONDS)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    async with Injector(setting, defaults, log=log, now=now):
        await stopped.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), setting.drain_seconds)
    log.info("injector.stopped")
