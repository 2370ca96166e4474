"""The life of the audit trail in a proxy: opened at start, told what happens, closed at the end.

And what it has to tell to log and metrics: above all its head, so that whoever scrapes the metrics
or collects the log is a witness of how far the trail had come.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client.core import Counter, Gauge, GaugeMetricFamily, Histogram

from icr_proxy import __version__
from icr_proxy.audit.chain import read_audit_key
from icr_proxy.audit.records import KeyRecord, ReloadRecord, StartRecord, SwitchRecord
from icr_proxy.audit.trail import Trail, WriteBatcher
from icr_proxy.audit.writer import TrailWriter, check_trail
from icr_proxy.audit.writer_thread import TrailThread
from icr_proxy.clock import stamp
from icr_proxy.config.reference import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from icr_proxy.audit.anchor import Rewind
    from icr_proxy.audit.chain import ChainHead
    from icr_proxy.audit.writer_thread import WriteResult
    from icr_proxy.config.models import AuditConfig, Config
    from icr_proxy.observability.log import Log

HASH_SHOWN = 12  # hex digits: the 48 bits that the metric has


class AuditService:
    """One trail and everything around it."""

    def __init__(
        self,
        directory: Path,
        *,
        config: AuditConfig,
        log: Log,
        registry: CollectorRegistry,
        now: Callable[[], float],
        clock: Callable[[], float],
        on_write: Callable[[WriteResult], None] = lambda _result: None,
    ) -> None:
        """Make everything; nothing is opened yet. `heard` is told of all that is written.

        Raises:
            StartError: the file with the key cannot be used.
        """
        self._directory = directory
        self._config = config
        self._now = now
        self._on_write = on_write
        key_file = config.key_file
        self._key = None if key_file is None else read_audit_key(key_file, key="audit.key_file")
        self._key_states: Mapping[str, str] | None = None
        self._is_open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reports = TrailReports(log=log, registry=registry)
        self._thread = TrailThread(
            open_writer=lambda: TrailWriter(directory, config=config, key=self._key, now=now),
            config=config,
            now=now,
            clock=clock,
            report=self._report,
        )
        self._batcher = WriteBatcher(self._thread.put)
        self.trail = Trail(config=config, put=self._batcher.add, watcher=self._reports, now=now)

    def inspect(self) -> None:
        """Look at the trail as `open` does, and change nothing.

        Raises:
            StartError: `open` would raise it.
        """
        check_trail(self._directory, config=self._config)

    async def start(self, config: Config) -> None:
        """Begin the trail of this process, and come back when the start is recorded.

        If it cannot be in time, the proxy starts all the same, and `on_failure` says what requests
        get until it can.

        Raises:
            StartError: its directory cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._reports.opened(rewind=self._thread.rewind, missing_anchor=self._thread.missing_anchor)
        self._is_open = True
        start = StartRecord(
            time=stamp(self._now()), version=__version__, config=config_digest(config)
        )
        recorded = self.trail.record_event(start)
        if self._key_states is not None:
            self.record_key_states(self._key_states)
        await recorded

    def record_key_states(self, states: Mapping[str, str]) -> None:
        """Record how the app's keys stand, now or as soon as there is a trail."""
        self._key_states = states
        if self._is_open:
            self.trail.record_event(KeyRecord(time=stamp(self._now()), states=dict(states)))

    def record_reload(self, config: Config, *, waiting: Sequence[str]) -> None:
        """Record what is in force from now on."""
        self.trail.record_event(
            ReloadRecord(
                time=stamp(self._now()),
                config=config_digest(config),
                restart_needed_for=tuple(waiting),
            )
        )

    def record_action(self, switch: str, installation: str | None, peer: str) -> None:
        """Record what somebody did on the admin port."""
        self.trail.record_event(
            SwitchRecord(
                time=stamp(self._now()), action=switch, installation=installation, peer=peer
            )
        )

    async def close(self) -> None:
        """Write what is left and end the trail of this process."""
        if self._is_open:
            self._is_open = False
            self._batcher.flush()
            await asyncio.to_thread(self._thread.stop)
            await asyncio.sleep(0)  # what the thread said last is heard in the next turn

    def status(self) -> dict[str, object]:
        """Tell how the trail stands, for whoever asks how the proxy is."""
        return {**self._reports.status(), "queue": self.trail.queued}

    def _report(self, result: WriteResult) -> None:
        """Carry over from the thread into the event loop, which may be gone at the very end."""
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._on_result, result)

    def _on_result(self, result: WriteResult) -> None:
        self._reports.on_write_result(result)
        self.trail.on_write_result(result)
        self._on_write(result)


class TrailReports:
    """What the trail tells to log and metrics."""

    def __init__(self, *, log: Log, registry: CollectorRegistry) -> None:
        self._log = log
        self._head: tuple[ChainHead, str | None] | None = None
        self._error: str | None = None
        self._anchor_error: str | None = None
        self._unrecorded = 0
        self._queued = 0
        records = Counter(
            "icr_proxy_audit_records", "Records of the audit trail.", ["result"], registry=registry
        )
        self._written = records.labels("written")
        self._lost = records.labels("lost")
        self._refused = records.labels("refused")
        Gauge(
            "icr_proxy_audit_queue", "Records that wait to be written.", registry=registry
        ).set_function(lambda: self._queued)
        self._seconds = Histogram(
            "icr_proxy_audit_write_seconds",
            "Time to write what had gathered, to the disk if audit.fsync is always.",
            registry=registry,
        )
        self._is_writable = Gauge(
            "icr_proxy_audit_writable", "1 if records can be written, 0 if not.", registry=registry
        )
        self._is_writable.set(1)
        registry.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Give the head, both halves of the same moment (called on each scrape).

        The hash is a value and not a label: a label that changes with each scrape would make a
        series of each scrape. 48 bits are what the value, a float, can hold exactly.
        """
        seq = GaugeMetricFamily(
            "icr_proxy_audit_head", "Sequence number of the newest audit record."
        )
        number = GaugeMetricFamily(
            "icr_proxy_audit_head_hash", "First 48 bits of the hash of that record, as a number."
        )
        if self._head is not None:
            head, _ = self._head
            seq.add_metric([], head.seq)
            number.add_metric([], head.number)
        return (seq, number)

    def queued(self, count: int) -> None:
        """Show how many records wait."""
        self._queued = count

    def unrecorded(self, *, refused: bool) -> None:
        """Count a request of which there is no record."""
        (self._refused if refused else self._lost).inc()
        self._unrecorded += 1

    def status(self) -> dict[str, object]:
        """Tell how the trail stands; the head is what a witness may be asked for."""
        head, file = self._head or (None, None)
        return {
            "writable": self._error is None,
            "error": self._error,
            "file": file,
            "seq": head.seq if head is not None else None,
            "hash": head.hash[:HASH_SHOWN] if head is not None else None,
            "unrecorded": self._unrecorded,
        }

    def opened(self, *, rewind: Rewind | None, missing_anchor: Path | None) -> None:
        """Tell how the trail compares with its anchor, if it does not agree."""
        if rewind is not None:
            self._log.error("audit.rewound", detail=rewind.detail)
        if missing_anchor is not None:
            self._log.warning("audit.anchor_missing", file=str(missing_anchor))

    def on_write_result(self, result: WriteResult) -> None:
        """Show how an attempt to write went; tell only what changes."""
        if result.head.seq:
            self._head = result.head, result.segment
        if result.entries:
            self._written.inc(len(result.entries))
            self._seconds.observe(result.seconds)
        if result.error is not None and self._error is None:
            self._log.error("audit.failed", detail=result.error, file=result.segment)
        if result.error is None and self._error is not None:
            self._log.info("audit.recovered", file=result.segment)
        if result.error != self._error:
            self._error = result.error
            self._is_writable.set(result.error is None)
        if result.anchor_error is not None and self._anchor_error is None:
            self._log.error("audit.anchor_failed", detail=result.anchor_error)
        if result.periodic:
            self._anchor_error = result.anchor_error
            self._log.info(
                "audit.head",
                seq=result.head.seq,
                hash=result.head.hash,
                file=result.segment,
            )


def config_digest(config: Config) -> str:
    """Give a hash by which two configurations are told apart, without their secrets."""
    lines = (f"{key}: {value}\n" for key, value in describe(config))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
