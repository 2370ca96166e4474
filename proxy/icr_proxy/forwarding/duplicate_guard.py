"""Duplicate-write guard: keeps a tool that gives up and tries again from doing a write twice.

A tool whose time is up closes its connection, and if the answer lay there unread, that end is a
reset (see `transport`): the tool knows nothing, and will try again. So a write is not forgotten
with its answer, but when its connection brings another request, or ends well.

The body is received before anything is sent, because it is part of what a write is known by. Of a
long one only the beginning and the announced length count: two that differ further on are taken for
the same, which is a false alarm; never the other way round.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import DuplicateSuspectedError, IdempotencyKeyReusedError, OverloadedError
from icr_proxy.forwarding.duplicate_store import (
    ANSWER_MOST,
    DuplicateEntry,
    RejectedDuplicate,
    ReplayedResponse,
    StoredResponse,
    WriteRequest,
    WriteResultFacts,
)
from icr_proxy.forwarding.response_classification import Effect, classify_effect
from icr_proxy.http1.headers import fields_of, idempotency_key
from icr_proxy.http1.response_head import headers_in
from icr_proxy.net.transport import is_taken, keep_nothing_back, was_reset

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from icr_proxy.errors import ProxyError
    from icr_proxy.forwarding.duplicate_store import DuplicateStore
    from icr_proxy.forwarding.forwarder import ForwardJob
    from icr_proxy.http1.headers import Header
    from icr_proxy.http1.response_head import ResponseHeaders
    from icr_proxy.observability.outcome import Journal
    from icr_proxy.server.response import ResponseWriter

    Forward = Callable[[ForwardJob, Journal, "ResponseWriter | RecordingResponse"], Awaitable[None]]


class DeliveryTracker:
    """Detects responses that their client did not read, by how its connection ends."""

    def __init__(
        self,
        *,
        duplicates: DuplicateStore,
        clock: Callable[[], float],
        reopened: Callable[[], None],
    ) -> None:
        """Reopen entries of `duplicates` whose answers turn out to be unread."""
        self._duplicates = duplicates
        self._clock = clock
        self._reopened = reopened
        self._waiting: dict[bytes, tuple[DuplicateEntry, ResponseWriter, float]] = {}

    def __len__(self) -> int:
        """Count the answers."""
        return len(self._waiting)

    def expect(self, entry: DuplicateEntry, answer: ResponseWriter, *, until: float) -> None:
        """Wait to hear of an answer; what is heard after `until` does not matter any more."""
        self._waiting[entry.identity] = (entry, answer, until)
        answer.when_followed(lambda reset: self._heard(entry, reset=reset))

    def check_connection(self, identity: bytes) -> None:
        """See how a connection is now: its end may have come, and the event loop not looked."""
        found = self._waiting.get(identity)
        if found is not None and was_reset(found[1].transport):
            self._heard(found[0], reset=True)

    def _heard(self, entry: DuplicateEntry, *, reset: bool) -> None:
        found = self._waiting.get(entry.identity)
        if found is None or found[0] is not entry:
            return  # an equal write was answered on another connection meanwhile
        del self._waiting[entry.identity]
        if reset and self._duplicates.reopen(entry, now=self._clock(), until=found[2]):
            self._reopened()


READ_AHEAD = 64 * 1024
REPLAYED = (b"Idempotency-Replayed", b"true")
DUPLICATE_OF = b"X-ICR-Proxy-Duplicate-Of"
WOULD_REFUSE = "duplicate-guard"
RESULTS = ("refused", "replayed", "key-reused", "full", "reported", "left-open", "expired")


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the guard: `window` in seconds; not `enforced`, it only reports."""

    window: float
    enforced: bool


class DuplicateGuard:
    """Sends each write once."""

    def __init__(
        self,
        *,
        duplicates: DuplicateStore,
        counted: Callable[[str, int], None],
        clock: Callable[[], float],
    ) -> None:
        """Guard by `duplicates`; `counted` hears one of `RESULTS` and how often."""
        self._duplicates = duplicates
        self._counted = counted
        self._clock = clock
        self.receipts = DeliveryTracker(
            duplicates=duplicates, clock=clock, reopened=lambda: self._count("left-open")
        )

    async def serve(
        self,
        job: ForwardJob,
        *,
        terms: GuardSettings,
        received: Sequence[Header],
        journal: Journal,
        answer: ResponseWriter,
        forward: Forward,
    ) -> None:
        """Forward a write, or give the answer of the one that it repeats.

        Raises:
            DuplicateSuspectedError: it repeats one that is under way, or of unknown outcome.
            IdempotencyKeyReusedError: its key was used for another body.
            OverloadedError: so many are open that this one could not be remembered.
            BadRequestError: it has more than one key.
        """
        request = await describe(job, received, journal)
        now = self._clock()
        self._count("expired", self._duplicates.expire(now))
        self.receipts.check_connection(request.identity)
        verdict = self._duplicates.claim(
            request, request_id=journal.request_id, now=now, window=terms.window
        )
        if isinstance(verdict, DuplicateEntry):
            await self._watch(
                verdict,
                job,
                terms=terms,
                answer=answer,
                forward=lambda witness: forward(job, journal, witness),
            )
            return
        journal.duplicate_of = verdict.first
        if not terms.enforced:
            self._count("reported")
            journal.would_refuse = journal.would_refuse or WOULD_REFUSE
            await forward(job, journal, answer)
        elif isinstance(verdict, ReplayedResponse):
            self._count("replayed")
            await replay(verdict, journal, answer)
        else:
            self._count(verdict.why if verdict.why in RESULTS else "refused")
            raise refusal(verdict)

    async def _watch(
        self,
        entry: DuplicateEntry,
        job: ForwardJob,
        *,
        terms: GuardSettings,
        answer: ResponseWriter,
        forward: Callable[[RecordingResponse], Awaitable[None]],
    ) -> None:
        witness = RecordingResponse(answer, keeps=entry.keyed)
        try:
            await forward(witness)
        finally:
            now, ending = self._clock(), witness.ending(sent=job.is_sent)
            left_open = self._duplicates.settle(entry, ending, now=now, window=terms.window)
            self._count("left-open", int(left_open))
            if ending.delivered and ending.fate is Effect.APPLIED and not entry.keyed:
                self.receipts.expect(entry, answer, until=now + terms.window)

    def _count(self, result: str, number: int = 1) -> None:
        if number:
            self._counted(result, number)


class RecordingResponse:
    """A response writer that records what was written, for a repeated request."""

    def __init__(self, answer: ResponseWriter, *, keeps: bool) -> None:
        """Watch `answer`; keep a copy of it, if it is small, to be given again."""
        self._answer = answer
        self._copy: list[bytes] | None = [] if keeps else None
        self._size = 0
        self._head: tuple[int, bytes, bytes] | None = None
        self._whole = self._delivered = False

    @property
    def extra(self) -> Sequence[Header]:
        """Headers of every answer to this request."""
        return self._answer.extra

    def begin_with(self, passed: ResponseHeaders, *, status: int, reason: bytes) -> None:
        """Note the head."""
        self._head = status, reason, passed.section
        keep_nothing_back(self._answer.transport)
        self._answer.begin_with(passed, status=status, reason=reason)

    async def write(self, data: bytes) -> None:
        """Note a piece of the body."""
        self._keep(data)
        await self._answer.write(data)

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > ANSWER_MOST:
            self._copy = None
        elif self._copy is not None:
            self._copy.append(data)

    async def flush_head(self) -> None:
        """Pass on."""
        await self._answer.flush_head()

    async def end(self, data: bytes = b"") -> None:
        """Note that the API has said all of it, and whether it has reached the caller."""
        self._keep(data)
        self._whole = True
        await self._answer.end(data)
        self._delivered = is_taken(self._answer.transport)

    def ending(self, *, sent: bool) -> WriteResultFacts:
        """Tell what is known."""
        if self._head is None:
            return WriteResultFacts(sent=sent, fate=Effect.UNKNOWN, delivered=False)
        status, reason, section = self._head
        headers = headers_in(section)
        copy = None
        if self._copy is not None and self._whole:
            copy = StoredResponse(
                status=status, reason=reason, headers=headers, body=b"".join(self._copy)
            )
        return WriteResultFacts(
            sent=sent,
            fate=classify_effect(status, headers),
            delivered=self._delivered,
            answer=copy,
            whole=self._whole,
        )


async def describe(job: ForwardJob, received: Iterable[Header], journal: Journal) -> WriteRequest:
    """Receive as much of the body as a write is known by.

    Raises:
        BadRequestError: it has more than one `Idempotency-Key`.
        CallerError: the caller left or stopped while sending its body.
    """
    key = idempotency_key(fields_of(received))
    beginning, is_all = b"", True
    if job.body is not None:
        beginning, is_all = await job.body.read_ahead(READ_AHEAD)
        journal.bytes_in = job.body.size
        if job.body.digest is not None:
            journal.digest_in = job.body.digest.hexdigest()
    digest = sha256(beginning)
    if not is_all:
        digest.update(b"and more, in all: %b" % str(job.length).encode())
    return WriteRequest(
        installation=journal.installation,
        caller=journal.caller,
        method=job.method,
        target=job.target,
        body=digest.digest(),
        key=key,
    )


async def replay(verdict: ReplayedResponse, journal: Journal, answer: ResponseWriter) -> None:
    """Give the answer that was given before."""
    stored = verdict.answer
    journal.status = stored.status
    of = (DUPLICATE_OF, verdict.first.encode("ascii"))
    answer.begin(
        status=stored.status, reason=stored.reason, headers=(*stored.headers, REPLAYED, of)
    )
    if stored.body:
        await answer.write(stored.body)
    await answer.end()


SENTENCES = {
    "in-flight": "the same request is under way, as {}; wait for what becomes of that one",
    "unknown": (
        "it looks like {} sent again, and whether the API has acted on that one is not known;"
        " find out before you repeat it"
    ),
    "answered": (
        "it has the Idempotency-Key of {}, which was answered; that answer is not kept here"
    ),
}


def refusal(verdict: RejectedDuplicate) -> ProxyError:
    """Put a verdict in words."""
    if verdict.why == "full" or verdict.first is None:
        return OverloadedError(
            "so many requests of this installation are of unknown outcome that this one could not"
            " be told from a repetition later",
            retry_after=verdict.wait,
        )
    if verdict.why == "key-reused":
        return IdempotencyKeyReusedError(
            f"its Idempotency-Key was sent with another body before, in {verdict.first}",
            duplicate_of=verdict.first,
        )
    return DuplicateSuspectedError(
        SENTENCES[verdict.why].format(verdict.first),
        duplicate_of=verdict.first,
        retry_after=verdict.wait,
    )
