"""What an open console is told, a few times a second: counts of everything, and some of the rows.

A thousand requests a second are no thousand messages. Whoever reads too slowly loses whole frames
and is told how much that was.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.admin.console_timeline import OK, ending_of
from icr_proxy.masking import CREDENTIAL, masked_target

if TYPE_CHECKING:
    from icr_proxy.observability.outcome import Outcome

ROWS_MOST = 25  # rows in a frame; with four frames a second, more than anybody can read
RING = 24  # frames that wait for a slow reader: six seconds
INSTALLATIONS_MOST = 1000


def event(name: str, members: object) -> bytes:
    """Write one server-sent event.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(members))


class Row(msgspec.Struct, frozen=True, gc=False):
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


NAMES = Row.__struct_fields__[:-1]  # an outcome cannot know the last one


def shown(outcome: Outcome, *, audit_seq: int | None = None) -> Row:
    """Give the row of a request."""
    row = Row(*[*(getattr(outcome, name) for name in NAMES), audit_seq])
    if not CREDENTIAL.search(row.path):
        return row
    return msgspec.structs.replace(row, path=masked_target(row.path))


class Sample:
    """Some of the requests since the last frame; those worth a look before the others."""

    def __init__(self) -> None:
        self._telling: deque[tuple[int, Outcome]] = deque(maxlen=ROWS_MOST)
        self._usual: deque[tuple[int, Outcome]] = deque(maxlen=ROWS_MOST)
        self.count = 0

    def add(self, outcome: Outcome) -> None:
        """Take note of one request."""
        self.count += 1
        is_usual = ending_of(outcome) == OK and not outcome.changes_state
        (self._usual if is_usual else self._telling).append((self.count, outcome))

    def take(self) -> tuple[list[Outcome], int]:
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


class Tally(msgspec.Struct, gc=False):
    """What was counted of one installation, and how it last went wrong."""

    requests: int = 0
    errors: int = 0
    last_error: str | None = None
    last_error_at: float | None = None


class Tallies:
    """One tally for each installation; bounded, the one unheard of for longest leaves first."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, Tally] = OrderedDict()
        self._changed: set[str] = set()

    def add(self, outcome: Outcome) -> None:
        """Count one request, if it was for an installation."""
        name = outcome.installation
        if name is None:
            return
        tally = self._of.get(name)
        if tally is None:
            tally = self._of[name] = Tally()
            if len(self._of) > INSTALLATIONS_MOST:
                gone, _ = self._of.popitem(last=False)
                self._changed.discard(gone)
        else:
            self._of.move_to_end(name)
        tally.requests += 1
        if ending_of(outcome) != OK:
            tally.errors += 1
            tally.last_error = outcome.code or str(outcome.status)
            tally.last_error_at = outcome.started_at + outcome.duration
        self._changed.add(name)

    def all(self) -> dict[str, Tally]:
        """Give every tally."""
        return dict(self._of)

    def changes(self) -> dict[str, Tally]:
        """Give those that have changed since this was last asked."""
        changed, self._changed = self._changed, set()
        return {name: self._of[name] for name in changed}


class Ring:
    """Frames on their way to one reader; when it is full, the oldest is lost and counted."""

    def __init__(self) -> None:
        self._frames: deque[tuple[bytes, int]] = deque()
        self.lost = 0
        """Requests in the frames that were lost since `take_lost`."""
        self.lost_frames = 0

    def put(self, frame: bytes, *, requests: int) -> None:
        """Add a frame that tells of so many requests."""
        if len(self._frames) == RING:
            _, missed = self._frames.popleft()
            self.lost += missed
            self.lost_frames += 1
        self._frames.append((frame, requests))

    def take(self) -> bytes:
        """Give all that waits, as one piece."""
        waiting = b"".join(frame for frame, _ in self._frames)
        self._frames.clear()
        return waiting

    def take_lost(self) -> tuple[int, int]:
        """Give how many frames were lost, how many requests they told of, and begin anew."""
        lost = self.lost_frames, self.lost
        self.lost = self.lost_frames = 0
        return lost
