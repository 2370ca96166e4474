"""The story of one request, from its head to its outcome."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from icr_proxy.errors import (
    CallerGoneError,
    CallerUnauthenticatedError,
    ProxyError,
    UpstreamTimeoutError,
)
from icr_proxy.forwarding.forwarder import ForwardJob
from icr_proxy.forwarding.listener_rules import decide, decide_for
from icr_proxy.forwarding.request_headers import given_ids
from icr_proxy.http1.headers import only
from icr_proxy.http1.problem import kind_of, problem
from icr_proxy.http1.response_head import headers_in, passed_back
from icr_proxy.identifiers import OnOrganization
from icr_proxy.observability.outcome import (
    CALLER_GONE_STATUS,
    SERVING,
    Journal,
    RandomDigits,
    continue_trace,
    readable_id,
)
from icr_proxy.policy.browser_guard import without_origin_headers
from icr_proxy.policy.router import settle
from icr_proxy.server.connection import peer_of
from icr_proxy.server.request import open_body
from icr_proxy.server.response import PHRASES, ResponseWriter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence, Sized

    from icr_proxy.audit.trail import Durable, Trail
    from icr_proxy.errors import CallerReason
    from icr_proxy.forwarding.duplicate_guard import DuplicateGuard, RecordingResponse
    from icr_proxy.forwarding.forwarder import Forwarder
    from icr_proxy.forwarding.header_rewriting import LinkRewriter
    from icr_proxy.forwarding.listener_rules import ListenerRules, RequestDecision
    from icr_proxy.forwarding.request_headers import Prepared
    from icr_proxy.http1.headers import Header, LoopDetector
    from icr_proxy.http1.response_head import ResponseHead
    from icr_proxy.identifiers import TokenKey
    from icr_proxy.observability.outcome import Outcome
    from icr_proxy.policy.router import Target
    from icr_proxy.server.limits import InFlight
    from icr_proxy.server.request import Request

NO_CONTENT = 204


class Handler:
    """Serves the requests of one listener."""

    def __init__(
        self,
        *,
        listener: str,
        rules: ListenerRules,
        forwarder: Forwarder,
        guard: DuplicateGuard,
        find: Callable[[str], Awaitable[str | None]],
        in_flight: InFlight,
        hops: LoopDetector,
        turn_away: Callable[[str, CallerReason], Awaitable[None]],
        read: Callable[[Outcome], None],
        trail: Trail | None = None,
        crashed: Callable[[BaseException, str], None],
        now: Callable[[], float],
        clock: Callable[[], float],
        watchers: Sized = (),
    ) -> None:
        """Serve by `rules`; while there are `watchers`, edited headers are noted by name, too."""
        self._listener = listener
        self.rules = rules
        self._forwarder = forwarder
        self.guard = guard
        self._find = find
        self._in_flight = in_flight
        self._hops = hops
        self._turn_away = turn_away
        self._read = read
        self._trail = trail
        self._announce = trail.announce if trail is not None else None
        self._crashed = crashed
        self._now = now
        self._digits = RandomDigits()
        self._clock = clock
        self._watchers = watchers

    def respond_error(self, request: Request, error: ProxyError) -> Awaitable[ResponseWriter]:
        """Answer a request that could not even be parsed."""
        return self(request, error)

    async def __call__(self, request: Request, broken: ProxyError | None = None) -> ResponseWriter:
        """Serve one request and hand its outcome to the readers."""
        rules = self.rules
        journal = self._begin(request, rules, method=request.method if broken is None else "-")
        answer = ResponseWriter(
            request,
            timeout=rules.limits.body_timeout,
            closing=self._is_closing if broken is None else _closes,
        )
        answer.request_id = journal.request_id.encode("ascii")
        if self._trail is not None:
            answer.digest = self._trail.new_digest()
        try:
            if broken is not None:
                raise broken  # noqa: TRY301  # answered like any other error
            self._in_flight.acquire(rules.limits.in_flight)
            try:
                if rules.total_seconds is None:
                    await (await self._decide(request, rules, journal, answer))
                else:
                    async with asyncio.timeout(rules.total_seconds):
                        await (await self._decide(request, rules, journal, answer))
            finally:
                self._in_flight.release()
        except asyncio.CancelledError:
            journal.status = CALLER_GONE_STATUS
            journal.code = "draining" if self._in_flight.closing else "caller-gone"
            answer.abort()
            raise
        except Exception as error:  # noqa: BLE001  # the one place: whatever it is, it is answered
            await self._fail(error, journal, answer)
        finally:
            kept = self._close(journal, answer)
        if kept is not None:
            await kept
        return answer

    def _begin(self, request: Request, rules: ListenerRules, *, method: str) -> Journal:
        """Give the request its ids."""
        digits = self._digits()
        request_id, traceparent = given_ids(request.head.section.fields)
        trace = continue_trace(traceparent, digits=digits, share=rules.trace_share)
        if trace.sampled or SERVING.get() is not None:  # the connection's task goes on
            SERVING.set(trace if trace.sampled else None)
        return Journal(
            request_id=request_id or digits[:32],
            trace=trace,
            listener=self._listener,
            peer=peer_of(request).address,
            method=method,
            started_at=self._now(),
            began=self._clock(),
        )

    def _is_closing(self) -> bool:
        return self._in_flight.closing

    def _close(self, journal: Journal, answer: ResponseWriter) -> Durable | None:
        """Hand the outcome to its readers; give what the connection has to wait for, if anything.

        The trail comes last: nothing of the story may come after what it has recorded.
        """
        journal.bytes_out = answer.sent
        if answer.digest is not None:
            journal.digest_out = answer.digest.hexdigest()
        outcome = journal.close(at=self._clock())
        self._read(outcome)
        if self._trail is None:
            return None
        return self._trail.record(outcome, reserved=journal.reserved_records)

    async def _decide(
        self,
        request: Request,
        rules: ListenerRules,
        journal: Journal,
        answer: ResponseWriter,
    ) -> Awaitable[None]:
        """Give what is to be done, to be awaited at once.

        Not done from here: each coroutine in which a request waits for the API costs it a place in
        memory, which is cold by the time the answer comes.
        """
        certificate = () if rules.callers is None else peer_of(request).names
        decision = decide(request.head, rules, hops=self._hops, certificate=certificate)
        prepared = decision.prepared
        if prepared is None and decision.to_find is not None:
            self._note(decision, journal, answer)  # the look-up may fail, too
            key = await settle(decision.to_find, lookup=self._find)
            decide_for(decision, key, request.head, rules, hops=self._hops)
            prepared = decision.prepared
        self._note(decision, journal, answer)
        target = decision.target
        if prepared is None or target is None:
            decision.raise_refusal()
            if decision.own_answer is None:
                raise RuntimeError("a decision says neither what to send nor what to answer")
            return self._grant(decision.own_answer, journal, answer)
        answer.is_private = rules.answers_private
        if rules.links is not None:
            answer.edit = rewrite_links(rules.links, request, target=target)
        if self._trail is not None:
            await self._trail.reserve(journal)
        job = self._make_job(
            request, rules, target=target, prepared=prepared, key=decision.key, answer=answer
        )
        if isinstance(decision.credential, OnOrganization):
            job.organization = decision.credential.organization
        if rules.guard is None or not job.changes_state:
            return self._forward(job, journal, answer)
        return self.guard.serve(
            job,
            terms=rules.guard,
            received=request.raw_headers,
            journal=journal,
            answer=answer,
            forward=self._forward,
        )

    def _make_job(
        self,
        request: Request,
        rules: ListenerRules,
        *,
        target: Target,
        prepared: Prepared,
        key: TokenKey | None,
        answer: ResponseWriter,
    ) -> ForwardJob:
        """Say what is to be sent, but for the token."""
        body, length = open_body(request, limits=rules.limits, go_on=answer.send_continue)
        if body is not None and self._trail is not None:
            body.digest = self._trail.new_digest()
        return ForwardJob(
            key=key,
            method=request.method,
            target=target.sent,
            prepared=prepared,
            watched=request.raw_headers if self._watchers else None,
            body=body,
            length=length,
            changes_state=target.operation.changes_state,
            announce=self._announce,
        )

    def _note(self, decision: RequestDecision, journal: Journal, answer: ResponseWriter) -> None:
        """Write into the journal what was decided, whatever comes of the request."""
        answer.extra = decision.extra
        target, caller, verdict = decision.target, decision.caller, decision.verdict
        if target is not None:
            journal.path = target.shown
            journal.operation = target.operation.name
            journal.changes_state = target.operation.changes_state
            if self._trail is not None:
                journal.target = target.forwarded
        if caller is not None:
            journal.caller = caller.name
        journal.installation = decision.installation
        if verdict is not None:
            journal.rule = verdict.rule
            if not verdict.allowed and not verdict.enforced:
                journal.would_refuse = verdict.rule

    async def _grant(
        self, headers: Sequence[tuple[bytes, bytes]], journal: Journal, answer: ResponseWriter
    ) -> None:
        """Answer what is asked of this proxy; the API never sees it."""
        journal.status = NO_CONTENT
        answer.begin(status=NO_CONTENT, reason=PHRASES[NO_CONTENT], headers=headers)
        await answer.end()

    async def _forward(
        self, job: ForwardJob, journal: Journal, answer: ResponseWriter | RecordingResponse
    ) -> None:
        """Stream the answer as it comes; once it began, an error breaks the connection."""
        try:
            opened = await self._forwarder.send_request(job, journal)
            response = opened.response
            try:
                begin_answer(response.head, journal, answer)
                data = opened.prefix or response.read_nowait()
                if not data:
                    await answer.flush_head()
                    data = await response.read()
                while data and not response.is_read:
                    await answer.write(data)
                    data = await response.read()
                await answer.end(data)
            finally:
                response.close()
        finally:
            if job.body is not None:
                journal.bytes_in = job.body.size
                if job.body.digest is not None:
                    journal.digest_in = job.body.digest.hexdigest()

    async def _fail(self, error: Exception, journal: Journal, answer: ResponseWriter) -> None:
        """Answer with the problem, or break the connection if an answer has begun."""
        if isinstance(error, TimeoutError):
            error = UpstreamTimeoutError("the request took longer than upstream.timeouts.total")
        if not isinstance(error, ProxyError):
            self._crashed(error, journal.request_id)
        kind = kind_of(error)
        journal.code = kind.code
        if isinstance(error, CallerGoneError) or answer.started:
            if isinstance(error, CallerGoneError):
                journal.status = CALLER_GONE_STATUS
            answer.abort()
            return
        journal.origin, journal.status = "proxy", kind.status
        if isinstance(error, CallerUnauthenticatedError):
            await self._turn_away(journal.peer, error.reason)
        try:
            await answer.send_problem(
                problem(error, request_id=journal.request_id, trace_id=journal.trace.id)
            )
        except ProxyError:
            journal.status, journal.code = CALLER_GONE_STATUS, "caller-gone"
            answer.abort()


def rewrite_links(
    links: LinkRewriter, request: Request, *, target: Target
) -> Callable[[Sequence[Header]], list[Header]] | None:
    """Say how links in the answer are turned to the address the caller used, if it is known."""
    return links.towards(
        request.raw_path,
        only(request.head.section.fields, b"host"),
        is_tls=request.secure,
        installation=target.prefix.installation if target.prefix is not None else None,
    )


def _closes() -> bool:
    """Whether the connection ends with the answer, where the request could not be read."""
    return True


def begin_answer(
    head: ResponseHead, journal: Journal, answer: ResponseWriter | RecordingResponse
) -> None:
    """Pass the head of the API's answer back."""
    journal.origin = "upstream"
    journal.status = status = head.line.status
    passed = head.passed_back
    if passed.request_id:
        journal.upstream_request_id = readable_id(passed.request_id)
    if answer.extra:
        passed = passed_back(without_origin_headers(headers_in(passed.section)))
    answer.begin_with(passed, status=status, reason=head.line.reason)
