"""Tells open consoles what happens; a reader of outcomes.

While none is open, a request costs one append to a short ring and one look at a flag. Counting
begins with the first console and goes on for some minutes after the last has gone, so that a page
that is loaded again keeps its charts.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from icr_proxy.admin.console_frames import (
    RECORDS_KEPT,
    RECORDS_MOST,
    AuditIndex,
    ConsoleRow,
    FrameBuffer,
    InstallationTallies,
    RequestSample,
    console_row,
    event,
)
from icr_proxy.admin.console_timeline import SPAN, Timeline
from icr_proxy.errors import DrainingError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence, Sized

    from icr_proxy.audit.writer_thread import WriteResult
    from icr_proxy.observability.outcome import Outcome

FRAME_SECONDS = 0.25
RECENT = 200  # rows for a console that has just been opened
SUBSCRIBERS_MOST = 16


class Subscription:
    """One open console: the frames that wait for it."""

    def __init__(self, snapshot: Callable[[], bytes]) -> None:
        self._snapshot = snapshot
        self._ring = FrameBuffer()
        self._news = asyncio.Event()
        self._ended: str | None = None
        self._is_over = False

    def put(self, frame: bytes, *, requests: int) -> None:
        """Add a frame; if too many wait, the oldest is lost."""
        self._ring.put(frame, requests=requests)
        self._news.set()

    def end(self, reason: str) -> None:
        """Let it come to its end, once it has read what waits."""
        self._ended = reason
        self._news.set()

    async def next(self) -> bytes | None:
        """Wait for what is to be sent; `None` at the end."""
        await self._news.wait()
        if self._is_over:
            return None
        data = self._ring.drain()
        frames, requests = self._ring.drain_lost()
        if frames:
            # What was counted in the lost frames is told anew, so that no chart has a hole.
            missed = event("missed", {"frames": frames, "requests": requests})
            data = missed + self._snapshot() + data
        if self._ended is None:
            self._news.clear()
            return data
        self._is_over = True
        return data + event("end", {"reason": self._ended})


class ConsoleFeed:
    """What consoles see, as far as it comes from requests."""

    def __init__(self, *, now: Callable[[], float], in_flight: Callable[[], int]) -> None:
        self._now = now
        self._in_flight = in_flight
        self.before_flush: Callable[[], None] = lambda: None
        """Called before a console is told what there is: what happened before is part of it."""
        self._since = now()
        self._recent: deque[Outcome] = deque(maxlen=RECENT)
        self._timeline = Timeline()
        self._tallies = InstallationTallies()
        self._sample = RequestSample()
        self._recorded = AuditIndex()
        self._subscriptions: set[Subscription] = set()
        self.watchers: Sized = self._subscriptions
        """As long as it holds anybody, a console is open."""
        self._counting = False
        self._stop_frames: Callable[[], object] = lambda: None
        self._forgetting: asyncio.TimerHandle | None = None
        self._ended: str | None = None
        self.would_refuse: Counter[str] = Counter()
        """Requests that each rule would have refused, were the policy enforced; since the start."""

    def read_all(self, outcomes: Iterable[Outcome]) -> None:
        """Read outcomes in turn."""
        for outcome in outcomes:
            self._recent.append(outcome)
            if outcome.would_refuse is not None:
                self.would_refuse[outcome.would_refuse] += 1
            if self._counting:
                self._count(outcome)

    def landed(self, landed: WriteResult) -> None:
        """Take note of records of the audit trail."""
        most = RECORDS_MOST if self._subscriptions else RECORDS_KEPT
        self._recorded.add(landed.entries, last=landed.last, most=most)

    @contextmanager
    def subscription(self) -> Iterator[tuple[bytes, Subscription]]:
        """Open a console: what there is now, and what comes after it.

        Raises:
            OverloadedError: too many are open.
            DrainingError: the proxy is stopping.
        """
        if self._ended is not None:
            raise DrainingError("this proxy is shutting down")
        if len(self._subscriptions) >= SUBSCRIBERS_MOST:
            raise OverloadedError(
                f"{SUBSCRIBERS_MOST} consoles are open, which is all there may be"
            )
        self.before_flush()
        self._begin()
        subscription = Subscription(lambda: self._snapshot(rows=False))
        self._subscriptions.add(subscription)
        try:
            yield self._snapshot(rows=True), subscription
        finally:
            self._subscriptions.discard(subscription)
            if not self._subscriptions:
                self._rest()

    def end(self, reason: str) -> None:
        """Let every console come to its end, and open none any more."""
        self._ended = reason
        self._flush()
        if self._forgetting is not None:
            self._forgetting.cancel()
        for subscription in self._subscriptions:
            subscription.end(reason)

    def _count(self, outcome: Outcome) -> None:
        self._timeline.add(outcome)
        self._tallies.add(outcome)
        if self._subscriptions:
            self._sample.add(outcome)

    def _begin(self) -> None:
        """Count, and send frames, from now on; what the ring still knows is counted at once."""
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        if not self._counting:
            self._counting = True
            if len(self._recent) == RECENT:  # it knows of nothing that ended before its oldest
                oldest = self._recent[0]
                self._since = oldest.started_at + oldest.duration
            for outcome in self._recent:
                self._count(outcome)
        if not self._subscriptions:
            loop = asyncio.get_running_loop()
            frames = loop.create_task(self._send_frames(), name="console-frames")
            self._stop_frames = frames.cancel

    def _rest(self) -> None:
        self._stop_frames()
        self._sample = RequestSample()
        self._recorded.rest()
        self._forgetting = asyncio.get_running_loop().call_later(SPAN, self._forget)

    def _forget(self) -> None:
        self._counting = False
        self._timeline, self._tallies = Timeline(), InstallationTallies()

    async def _send_frames(self) -> None:
        while True:
            await asyncio.sleep(FRAME_SECONDS)
            self._flush()

    def _flush(self) -> None:
        count = self._sample.count
        audited = self._recorded.pending()
        if not count and not audited:
            return
        outcomes, left_out = self._sample.drain()
        rows = self._rows(outcomes)
        self._recorded.trim(RECORDS_KEPT)
        frame = event(
            "frame",
            {
                **self._numbers(),
                "seconds": self._timeline.changes(),
                "rows": rows,
                "left_out": left_out,
                "audited": audited,
                "installations": self._tallies.changes(),
            },
        )
        for subscription in self._subscriptions:
            subscription.put(frame, requests=count)

    def _snapshot(self, *, rows: bool) -> bytes:
        return event(
            "snapshot",
            {
                **self._numbers(),
                "since": self._since,
                "seconds": self._timeline.rows(now=self._now()),
                "rows": self._rows(self._recent) if rows else [],
                "installations": self._tallies.all(),
            },
        )

    def _rows(self, outcomes: Sequence[Outcome]) -> list[ConsoleRow]:
        seqs = self._recorded.of(outcomes)
        return [
            console_row(outcome, audit_seq=seq) for outcome, seq in zip(outcomes, seqs, strict=True)
        ]

    def _numbers(self) -> dict[str, object]:
        now = self._now()
        return {
            "now": now,
            "minute": self._timeline.minute(now=now),
            "in_flight": self._in_flight(),
            "would_refuse": self.would_refuse,
        }
