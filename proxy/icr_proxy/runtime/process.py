"""Runs an app as a program: event loop, signals, reload, exit code."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import TYPE_CHECKING

import uvloop

from icr_proxy.files import signature
from icr_proxy.net.descriptors import open_now, raise_limit
from icr_proxy.runtime import bootstrap
from icr_proxy.runtime.app import App
from icr_proxy.runtime.descriptor_shares import DescriptorLimit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from icr_proxy.config.models import Config
    from icr_proxy.files import Signature
    from icr_proxy.net.descriptors import DescriptorShares
    from icr_proxy.observability.log import ByteStream

OK, FAILED = 0, 1
TERMINATED = 128 + signal.SIGTERM  # what a shell reports of a process that the signal killed
WATCH_SECONDS = 2.0
COLLECT_AFTER = 10_000  # objects that may hold others
CLOSE_SECONDS = 0.9  # to close everything after the drain; then the process ends in any case


def run(*, load: Callable[[], Config], file: Path | None, stream: ByteStream) -> int:
    """Serve until told to stop; return the exit code, with which the process should end at once.

    0 after a complete drain or a signal before it was ready, 1 if requests had to be cut off, 143
    after a second signal. A second after the longest drain the process ends by itself, whatever
    still hangs.

    Raises:
        StartError: it cannot start.
    """
    seen = _signature_of(file)  # before the file is read, so that no change is missed
    descriptors = DescriptorLimit(limit=raise_limit(), used=open_now())
    program = _Program(
        load(), load=load, file=file, seen=seen, stream=stream, descriptors=descriptors
    )
    return bootstrap.run_service(program.main(), new_loop=uvloop.new_event_loop)


class _Program:
    def __init__(
        self,
        config: Config,
        *,
        load: Callable[[], Config],
        file: Path | None,
        seen: Signature | None,
        stream: ByteStream,
        descriptors: DescriptorLimit,
    ) -> None:
        self._config = config
        self._seen = seen
        self._load = lambda: descriptors.clamp_running(load())
        self._descriptors = descriptors
        self._file = file
        self._stream = stream
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._signalled = False
        self._code = FAILED
        self._drain_seconds: Callable[[], float] = lambda: 0.0

    async def main(self) -> int:
        loop = asyncio.get_running_loop()
        # Reading files may take long (a pipe has ten seconds). Until all is read, a signal ends the
        # process at once; a handler of the loop would wait for its turn.
        shares = self._descriptors.shares(self._config)
        app = App(
            self._descriptors.clamp(self._config),
            stream=self._stream,
            on_quit=self._stop_on_request,
            port_connections=shares.port,
        )
        _warn_clamped(app, self._config, shares, open_files=self._descriptors.limit)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_on_signal)
        self._drain_seconds = lambda: app.config.shutdown.min_drain + app.config.shutdown.max_drain
        if not await self._start(app):
            self._code = OK
            await app.stop(hurry=True)
            return OK
        try:
            self._code = await self._serve(app)
        finally:
            await app.stop(hurry=self._hurry.is_set())
        return self._code

    async def _start(self, app: App) -> bool:
        """Start; return whether to serve. A signal ends a start that takes long."""
        loop = asyncio.get_running_loop()
        start = loop.create_task(app.start(), name="start")
        stop = loop.create_task(self._stop.wait(), name="stop")
        await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not start.done():
            start.cancel()
            await asyncio.wait((start,))
            return False
        start.result()
        hangup = bootstrap.early_hangup()
        loop.add_signal_handler(signal.SIGHUP, lambda: app.reload(self._load))
        if hangup.came:
            app.reload(self._load)
        return True

    async def _serve(self, app: App) -> int:
        """Serve until told to stop, then drain; return the exit code."""
        loop = asyncio.get_running_loop()
        # Objects of the start stay, so the collector need not look at them again. A collection
        # before this would take 23 ms, without any answer, to find five of 200,000 objects.
        gc.freeze()
        # Few requests leave anything to the collector: their objects are gone when they end. By
        # default it runs after 700 new objects and looks at all requests in flight, which takes a
        # twelfth of all time with 1,000 connections.
        gc.set_threshold(COLLECT_AFTER, 10, 10)
        watcher = loop.create_task(self._watch(app), name="watch-files")
        await self._stop.wait()
        watcher.cancel()
        drain = loop.create_task(app.drain(), name="drain")
        hurry = loop.create_task(self._hurry.wait(), name="hurry")
        await asyncio.wait((drain, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not drain.done():
            drain.cancel()
            return TERMINATED
        return OK if drain.result() else FAILED

    def _stop_on_signal(self) -> None:
        if self._signalled:
            self._hurry.set()
            bootstrap.leave_after(
                CLOSE_SECONDS, code=lambda: TERMINATED if self._code == FAILED else self._code
            )
        self._signalled = True
        self._begin_stop()

    def _stop_on_request(self) -> bool:
        """Stop as after a signal, but no second request or first signal after it is a hurry."""
        is_new = not self._stop.is_set()
        self._begin_stop()
        return is_new

    def _begin_stop(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            seconds = self._drain_seconds() + CLOSE_SECONDS
            bootstrap.leave_after(seconds, code=lambda: self._code)

    async def _watch(self, app: App) -> None:
        """Read files anew that have changed: configuration, app keys, `upstream.ca_file`.

        Kubernetes changes those of a ConfigMap or a Secret by the swap of a symbolic link.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            app.outbound.pool.refresh_trust()
            app.credentials.keys.refresh()
            now = _signature_of(self._file)
            if now != self._seen:
                self._seen = now
                app.reload(self._load)


def _warn_clamped(app: App, wanted: Config, shares: DescriptorShares, *, open_files: int) -> None:
    """Warn of limits of connections for which there are too few file descriptors."""
    callers, upstream = wanted.limits.connections, wanted.upstream.connections
    if (shares.callers, shares.upstream) != (callers, upstream):
        app.observers.log.warning(
            "limits.clamped",
            open_files=open_files,
            connections=shares.callers,
            connections_configured=callers,
            upstream_connections=shares.upstream,
            upstream_connections_configured=upstream,
        )


def _signature_of(file: Path | None) -> Signature | None:
    return signature(file) if file is not None else None
