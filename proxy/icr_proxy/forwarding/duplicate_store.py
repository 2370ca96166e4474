"""Which writes are under way, and which ended without anybody knowing how: so none is done twice.

A tool that times out tries again, and the API may have acted the first time. So a write is claimed
before it is sent, by what it asks for, and the claim is given up when it is known what became of
it: at once if the caller has the answer or nothing was done, at the end of the window if not.

Nothing is forgotten to make room. Where there is none a claim is refused, and so the write: each
installation has its share, so that one with many open questions cannot take the others' memory.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

import msgspec

from icr_proxy.forwarding.response_classification import Effect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from icr_proxy.http1.headers import Header

ENTRIES_MOST = 20_000
ENTRIES_SHARE = 1_000  # of one installation; as many as `limits.in_flight` lets be under way
ANSWER_MOST = 64 * 1024  # bytes of a body
ANSWERS_MOST = 16 << 20
ANSWERS_SHARE = 1 << 20
ENTRY_BYTES = 1024  # what an answer costs beside its body, headers included, generously


class WriteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A write, as far as it matters here: who asks, for what, and a digest of the body."""

    installation: str | None
    caller: str | None
    method: str
    target: bytes
    body: bytes
    key: bytes | None = None
    """`Idempotency-Key`, if there is one: then the body is not part of what it is known by."""

    @property
    def identity(self) -> bytes:
        """What makes two requests the same one: 32 bytes, and no way back to what is in them."""
        known_by = (b"key", self.key) if self.key is not None else (b"body", self.body)
        parts = (
            _some(self.installation),
            _some(self.caller),
            self.method.encode(),
            self.target,
            *known_by,
        )
        # Lengths first, so that no part can pass for the end of the one before.
        return sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).digest()


class StoredResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response that is given again."""

    status: int
    reason: bytes
    headers: Sequence[Header]
    body: bytes


class DuplicateEntry(msgspec.Struct, kw_only=True, eq=False):
    """One write; `until` is set when it is no longer under way."""

    identity: bytes
    owner: str | None
    keyed: bool
    body: bytes
    first: str
    """The request's own id, by which log and API know it."""
    until: float | None = None
    answer: StoredResponse | None = None
    is_known: bool = False


class RejectedDuplicate(msgspec.Struct, frozen=True):
    """A request that is not sent: why, which one came before it, and how long waiting helps."""

    why: Literal["in-flight", "unknown", "answered", "key-reused", "full"]
    first: str | None
    wait: float


class ReplayedResponse(msgspec.Struct, frozen=True):
    """A request that is not sent: it gets the response to the first one."""

    first: str
    answer: StoredResponse


class WriteResultFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that decide what a claim leaves behind."""

    sent: bool
    """Whether any byte may have reached the API (in an attempt that it did not refuse)."""
    fate: Effect
    delivered: bool
    """Whether the caller has the whole answer."""
    answer: StoredResponse | None = None
    """The whole answer, if it was small enough to keep."""
    whole: bool = False
    """Whether the answer came to its end, kept or not."""


class DuplicateStore:
    """The writes of one process that must not be sent again."""

    def __init__(
        self,
        *,
        entries: int = ENTRIES_MOST,
        share: int = ENTRIES_SHARE,
        answers: int = ANSWERS_MOST,
        answers_share: int = ANSWERS_SHARE,
    ) -> None:
        """Bound the number of entries and the bytes of answers, in all and per installation."""
        self._most, self._share = entries, share
        self._answers, self._answers_share = answers, answers_share
        self._entries: dict[bytes, DuplicateEntry] = {}
        self._ended: dict[
            bytes, DuplicateEntry
        ] = {}  # those with an `until`, in the order of their ending
        self._owned: Counter[str | None] = Counter()
        self._kept: Counter[str | None] = Counter()
        self._kept_all = 0

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._entries)

    @property
    def kept(self) -> int:
        """Bytes of answers that are kept."""
        return self._kept_all

    def claim(
        self, request: WriteRequest, *, request_id: str, now: float, window: float
    ) -> DuplicateEntry | RejectedDuplicate | ReplayedResponse:
        """Let a write go on, or say why not."""
        identity = request.identity
        entry = self._entries.get(identity)
        if entry is not None and not _is_over(entry, now):
            return _answer(entry, request, now=now, window=window)
        if entry is not None:
            self._remove(entry)
        owner = request.installation
        if len(self._entries) >= self._most or self._owned[owner] >= self._share:
            return RejectedDuplicate("full", None, window)
        entry = DuplicateEntry(
            identity=identity,
            owner=owner,
            keyed=request.key is not None,
            body=request.body,
            first=request_id,
        )
        self._entries[identity] = entry
        self._owned[owner] += 1
        return entry

    def settle(
        self, entry: DuplicateEntry, ending: WriteResultFacts, *, now: float, window: float
    ) -> bool:
        """End a claim; say whether it is left open what became of the write."""
        outcome = classify_result(ending, keyed=entry.keyed)
        if outcome == "free":
            self._remove(entry)
            return False
        entry.until = now + window
        self._ended[entry.identity] = entry
        entry.is_known = outcome == "keep"
        if entry.is_known and ending.answer is not None:
            self._keep(entry, ending.answer)
        return not entry.is_known

    def reopen(self, entry: DuplicateEntry, *, now: float, until: float) -> bool:
        """Take back that an outcome was known; say whether that matters still."""
        if until <= now or entry.identity in self._entries:
            return False
        entry.until = until
        self._entries[entry.identity] = self._ended[entry.identity] = entry
        self._owned[entry.owner] += 1
        return True

    def expire(self, now: float) -> int:
        """Forget whose window has passed; count those of which nobody learnt what became of them.

        After a reload with another window the order is not exact; what is late leaves later.
        """
        unknown = 0
        while self._ended:
            entry = next(iter(self._ended.values()))
            if not _is_over(entry, now):
                break
            unknown += not entry.is_known
            self._remove(entry)
        return unknown

    def _keep(self, entry: DuplicateEntry, answer: StoredResponse) -> None:
        """Keep an answer if there is room; without, a second request is refused in its place."""
        cost = _cost(answer)
        if (
            self._kept_all + cost > self._answers
            or self._kept[entry.owner] + cost > self._answers_share
        ):
            return
        entry.answer = answer
        self._kept[entry.owner] += cost
        self._kept_all += cost

    def _remove(self, entry: DuplicateEntry) -> None:
        del self._entries[entry.identity]
        self._ended.pop(entry.identity, None)
        _less(self._owned, entry.owner, 1)
        if entry.answer is not None:
            cost = _cost(entry.answer)
            _less(self._kept, entry.owner, cost)
            self._kept_all -= cost


def classify_result(ending: WriteResultFacts, *, keyed: bool) -> Literal["free", "open", "keep"]:
    """Classify a result by what it means for the next request like it.

    free: it may be sent. open: it may not, for nobody knows. keep: with a key, the API is not asked
    again though all is known.
    """
    if not ending.sent or ending.fate is Effect.NOT_APPLIED:
        return "free"
    if ending.fate is Effect.UNKNOWN:
        return "open"
    if keyed and ending.whole:
        return "keep"
    if ending.fate is Effect.REJECTED or ending.delivered:
        return "free"
    return "open"  # the API has acted, and the caller does not know


def _answer(
    entry: DuplicateEntry, request: WriteRequest, *, now: float, window: float
) -> RejectedDuplicate | ReplayedResponse:
    wait = window if entry.until is None else entry.until - now
    if entry.body != request.body:  # only a key can bring two bodies together
        return RejectedDuplicate("key-reused", entry.first, wait)
    if entry.answer is not None:
        return ReplayedResponse(entry.first, entry.answer)
    if entry.until is None:
        return RejectedDuplicate("in-flight", entry.first, wait)
    return RejectedDuplicate("answered" if entry.is_known else "unknown", entry.first, wait)


def _is_over(entry: DuplicateEntry, now: float) -> bool:
    return entry.until is not None and entry.until <= now


def _cost(answer: StoredResponse) -> int:
    headers = sum(len(name) + len(value) for name, value in answer.headers)
    return ENTRY_BYTES + headers + len(answer.body)


def _less(counts: Counter[str | None], owner: str | None, number: int) -> None:
    counts[owner] -= number
    if counts[owner] <= 0:
        del counts[owner]


def _some(text: str | None) -> bytes:
    """Tell nobody from somebody without a name."""
    return b"-" if text is None else b"=" + text.encode("utf-8", "surrogateescape")
