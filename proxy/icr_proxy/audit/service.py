"""The audit trail of a running proxy, from start to stop, and what log and metrics show of it.

Both show the head: whoever collects them is a witness of how far the trail had come.
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

    from icr_proxy.audit.chain import ChainHead
    from icr_proxy.audit.writer_thread import WriteResult
    from icr_proxy.config.models import AuditConfig, Config
    from icr_proxy.observability.log import Log

HASH_SHOWN = 12  # hex digits: the 48 bits that the metric has


class AuditService:
    """The trail of a proxy: queue, writer thread and reports."""

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
        """Make everything; nothing is opened yet. `on_write` gets the result of each write.

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
        self.trail = Trail(
            config=config,
            put=self._batcher.add,
            on_unrecorded=self._reports.count_unrecorded,
            now=now,
        )
        self._reports.queue.set_function(lambda: self.trail.queued)

    def check(self) -> None:
        """Check the trail as `start` does, and change nothing.

        Raises:
            StartError: `start` would raise it.
        """
        check_trail(self._directory, config=self._config)

    async def start(self, config: Config) -> None:
        """Begin the trail of this process; return when the start is recorded.

        If that takes too long, the proxy starts all the same, and `on_failure` says what happens to
        requests.

        Raises:
            StartError: the directory cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._reports.opened(self._thread.writer)
        self._is_open = True
        now, digest = stamp(self._now()), config_digest(config)
        recorded = self.trail.record_event(
            StartRecord(time=now, version=__version__, config=digest)
        )
        if self._key_states is not None:
            self.record_key_states(self._key_states)
        await recorded

    def record_key_states(self, states: Mapping[str, str]) -> None:
        """Record the states of the app's keys, now or as soon as there is a trail."""
        self._key_states = states
        if self._is_open:
            self.trail.record_event(KeyRecord(time=stamp(self._now()), states=dict(states)))

    def record_reload(self, config: Config, *, waiting: Sequence[str]) -> None:
        """Record the configuration that is in force from now on."""
        now, digest = stamp(self._now()), config_digest(config)
        self.trail.record_event(
            ReloadRecord(time=now, config=digest, restart_needed_for=tuple(waiting))
        )

    def record_action(self, action: str, installation: str | None, peer: str) -> None:
        """Record an action of an operator on the admin port."""
        now = stamp(self._now())
        self.trail.record_event(
            SwitchRecord(time=now, action=action, installation=installation, peer=peer)
        )

    async def close(self) -> None:
        """Write what is queued and end the trail of this process."""
        if self._is_open:
            self._is_open = False
            self._batcher.flush()
            await asyncio.to_thread(self._thread.stop)
            await asyncio.sleep(0)  # the last result of the thread comes in the next turn

    def status(self) -> dict[str, object]:
        """Describe the trail for `/status`."""
        return {**self._reports.status(), "queue": self.trail.queued}

    def _report(self, result: WriteResult) -> None:
        """Pass a result from the thread to the event loop, which may be closed at the very end."""
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._on_result, result)

    def _on_result(self, result: WriteResult) -> None:
        self._reports.on_write_result(result)
        self.trail.on_write_result(result)
        self._on_write(result)


class TrailReports:
    """Log events and metrics of the trail."""

    def __init__(self, *, log: Log, registry: CollectorRegistry) -> None:
        self._log = log
        self._head: tuple[ChainHead, str | None] | None = None
        self._error: str | None = None
        self._anchor_error: str | None = None
        self._unrecorded = 0
        records = Counter(
            "icr_proxy_audit_records", "Records of the audit trail.", ["result"], registry=registry
        )
        self._written = records.labels("written")
        self._without_record = {result: records.labels(result) for result in ("lost", "refused")}
        self.queue = Gauge(
            "icr_proxy_audit_queue", "Records that wait to be written.", registry=registry
        )
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
        """Return number and hash of the head, of the same moment (called on each scrape).

        The hash is a value and not a label: a label that changes with each scrape would make a new
        series each time. A value is a float, which holds 48 bits exactly.
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

    def count_unrecorded(self, result: str) -> None:
        """Count a request without a record, `lost` or `refused`."""
        self._without_record[result].inc()
        self._unrecorded += 1

    def status(self) -> dict[str, object]:
        """Describe the trail; the head is what a witness may be asked for."""
        head, file = self._head or (None, None)
        return {
            "writable": self._error is None,
            "error": self._error,
            "file": file,
            "seq": head.seq if head is not None else None,
            "hash": head.hash[:HASH_SHOWN] if head is not None else None,
            "unrecorded": self._unrecorded,
        }

    def opened(self, writer: TrailWriter) -> None:
        """Log that the trail contradicts its anchor, or that the anchor is missing."""
        if writer.rewind is not None:
            self._log.error("audit.rewound", detail=writer.rewind.detail)
        if writer.missing_anchor is not None:
            self._log.warning("audit.anchor_missing", file=str(writer.missing_anchor))

    def on_write_result(self, result: WriteResult) -> None:
        """Count the result of a write; log only changes."""
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
    """Hash a configuration without its secrets, so that changes can be recognized."""
    lines = (f"{key}: {value}\n" for key, value in describe(config))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
