"""Frames for open consoles: counts of everything, some of the rows, and their audit records.

A thousand requests a second are no thousand messages. Whoever reads too slowly loses whole frames
and is told how much that was.

The trail tells of whole batches, and a batch is only kept, not looked through, until somebody
opens a console: a request costs nothing here but the memory. Even that is no more than it has to
be: the less is held, the sooner the next requests get memory that is still in the processor's
cache. An outcome is known by what it is and not by its id, which callers may choose.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec
from cachetools import Cache, LRUCache

from icr_proxy.admin.console_timeline import OK, ending_of
from icr_proxy.redaction import CREDENTIAL, masked_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.audit.records import Record
    from icr_proxy.observability.outcome import Outcome

ROWS_MOST = 25  # rows in a frame; with four frames a second, more than anybody can read
RING = 24  # frames that wait for a slow reader: six seconds
INSTALLATIONS_MOST = 1000


def event(name: str, members: object) -> bytes:
    """Write one server-sent event.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(members))


class ConsoleRow(msgspec.Struct, frozen=True, gc=False):
    """What is shown of one request: these members of its outcome by name, so that none slips in.

    Not `target`, which has the query. A path that somebody put a credential into is masked.
    """

    request_id: str
    trace_id: str
    listener: str
    peer: str
    method: str
    path: str
    operation: str
    changes_state: bool
    caller: str | None
    installation: str | None
    would_refuse: str | None
    duplicate_of: str | None
    token: str | None
    token_generation: int | None
    attempts: int
    status: int
    origin: str
    code: str | None
    bytes_in: int
    bytes_out: int
    started_at: float
    duration: float
    token_wait: float
    first_byte: float | None
    sent_after: float | None
    header_edits: tuple[str, ...]
    intent_seq: int | None
    audit_seq: int | None
    """Number of the audit record of the outcome."""


NAMES = ConsoleRow.__struct_fields__[:-1]  # an outcome cannot know the last one


def console_row(outcome: Outcome, *, audit_seq: int | None = None) -> ConsoleRow:
    """Make the row of the console for a request."""
    row = ConsoleRow(*[*(getattr(outcome, name) for name in NAMES), audit_seq])
    if not CREDENTIAL.search(row.path):
        return row
    return msgspec.structs.replace(row, path=masked_target(row.path))


class RequestSample:
    """A sample of the requests since the last frame; failures and slow ones before the others."""

    def __init__(self) -> None:
        self._telling: deque[tuple[int, Outcome]] = deque(maxlen=ROWS_MOST)
        self._usual: deque[tuple[int, Outcome]] = deque(maxlen=ROWS_MOST)
        self.count = 0

    def add(self, outcome: Outcome) -> None:
        """Take note of one request."""
        self.count += 1
        is_usual = ending_of(outcome) == OK and not outcome.changes_state
        (self._usual if is_usual else self._telling).append((self.count, outcome))

    def drain(self) -> tuple[list[Outcome], int]:
        """Give them in the order in which they ended, and how many there were besides."""
        room = ROWS_MOST - len(self._telling)
        usual = list(self._usual)[-room:] if room else []
        rows = [outcome for _, outcome in sorted([*self._telling, *usual], key=_number)]
        left_out = self.count - len(rows)
        self._telling.clear()
        self._usual.clear()
        self.count = 0
        return rows, left_out


def _number(numbered: tuple[int, Outcome]) -> int:
    return numbered[0]


class InstallationTally(msgspec.Struct, gc=False):
    """Counts of one installation, and its last failure."""

    requests: int = 0
    errors: int = 0
    last_error: str | None = None
    last_error_at: float | None = None


class InstallationTallies:
    """Counts by installation; bounded, the least recently used leaves first."""

    def __init__(self) -> None:
        self._of: LRUCache[str, InstallationTally] = LRUCache(INSTALLATIONS_MOST)
        # Of the same size, so that what has left the one has left the other.
        self._changed: LRUCache[str, InstallationTally] = LRUCache(INSTALLATIONS_MOST)

    def add(self, outcome: Outcome) -> None:
        """Count one request, if it was for an installation."""
        name = outcome.installation
        if name is None:
            return
        tally = self._of.get(name)
        if tally is None:
            tally = self._of[name] = InstallationTally()
        tally.requests += 1
        if ending_of(outcome) != OK:
            tally.errors += 1
            tally.last_error = outcome.code or str(outcome.status)
            tally.last_error_at = outcome.started_at + outcome.duration
        self._changed[name] = tally

    def all(self) -> dict[str, InstallationTally]:
        """Give every tally."""
        # By `Cache`: an `LRUCache` counts each look-up as use.
        return {name: Cache.__getitem__(self._of, name) for name in self._of}

    def changes(self) -> dict[str, InstallationTally]:
        """Give those that have changed since this was last asked."""
        changed = dict(self._changed)
        self._changed.clear()
        return changed


class FrameBuffer:
    """A bounded buffer of frames for one reader; when full, the oldest is lost and counted."""

    def __init__(self) -> None:
        self._frames: deque[tuple[bytes, int]] = deque()
        self.lost = 0
        """Requests in the frames that were lost since `drain_lost`."""
        self.lost_frames = 0

    def put(self, frame: bytes, *, requests: int) -> None:
        """Add a frame that tells of so many requests."""
        if len(self._frames) == RING:
            _, missed = self._frames.popleft()
            self.lost += missed
            self.lost_frames += 1
        self._frames.append((frame, requests))

    def drain(self) -> bytes:
        """Give all that waits, as one piece."""
        waiting = b"".join(frame for frame, _ in self._frames)
        self._frames.clear()
        return waiting

    def drain_lost(self) -> tuple[int, int]:
        """Give how many frames were lost, how many requests they told of, and begin anew."""
        lost = self.lost_frames, self.lost
        self.lost = self.lost_frames = 0
        return lost


RECORDS_KEPT = 450  # of 200 requests that change something, and some more
RECORDS_MOST = 10_000  # between two frames; more than can be written in that time
OWED_MOST = 250  # rows that were shown before their record was written

Told = tuple[str, float, int]
"""Id and beginning of a request, as which a page knows it, and the number of its record."""


class AuditIndex:
    """Finds the audit record number of a request, in the last written batches."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, Sequence[Record | Outcome]]] = deque()
        self._held = 0
        self._owed: deque[Outcome] = deque(maxlen=OWED_MOST)

    def add(self, entries: Sequence[Record | Outcome], *, last: int, most: int) -> None:
        """Keep a batch, `last` being the number of its last record; `most` records in all."""
        if entries:
            self._batches.append((last - len(entries) + 1, entries))
            self._held += len(entries)
            self.trim(most)

    def trim(self, most: int) -> None:
        """Forget all but the newest `most` records."""
        while self._held > most:
            first, entries = self._batches.popleft()
            self._held -= len(entries)
            left = most - self._held
            if left > 0:
                self._batches.appendleft((first + len(entries) - left, entries[-left:]))
                self._held = most

    def of(self, outcomes: Iterable[Outcome]) -> list[int | None]:
        """Give the numbers of their records, as far as they are there; owe the others."""
        if not self._batches:  # no audit trail is kept
            return [None for _ in outcomes]
        index = self._index()
        wanted = list(outcomes)
        self._owed.extend(each for each in wanted if id(each) not in index)
        return [index.get(id(each)) for each in wanted]

    def pending(self) -> list[Told]:
        """Give the numbers that were owed and have come."""
        if not self._owed:
            return []
        index = self._index()
        found = [each for each in self._owed if id(each) in index]
        left = [each for each in self._owed if id(each) not in index]
        self._owed = deque(left, maxlen=OWED_MOST)
        return [(each.request_id, each.started_at, index[id(each)]) for each in found]

    def rest(self) -> None:
        """Nobody looks any more."""
        self._owed.clear()
        self.trim(RECORDS_KEPT)

    def _index(self) -> dict[int, int]:
        """Give the numbers by the identity of what was recorded; all of it is held, so it lasts."""
        return {
            id(entry): first + place
            for first, entries in self._batches
            for place, entry in enumerate(entries)
        }
