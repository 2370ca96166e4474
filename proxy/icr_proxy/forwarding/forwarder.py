"""Sends a request to the API with a live token, and again only when the API provably did not act.

There are exactly two reasons to send again. *Retry*: connecting failed, or a read went into a
reused connection that the API was closing. *Replay*: the API refused the token, so it looked no
further. Whatever else happened to a write, it was sent once and the caller learns the truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from icr_proxy.errors import (
    CircuitOpenError,
    InstallationBlockedError,
    MintError,
    UpstreamBrokenError,
    UpstreamError,
    UpstreamTlsError,
    UpstreamUnreachableError,
)
from icr_proxy.forwarding.header_rewriting import header_edits
from icr_proxy.forwarding.response_classification import (
    INSPECT_LIMIT,
    UNAUTHORIZED,
    is_token_rejection,
    may_be_about_token,
)
from icr_proxy.http1.headers import single
from icr_proxy.upstream.interface import UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from icr_proxy.credentials.access_token import CachedToken
    from icr_proxy.credentials.token_cache import TokenCache
    from icr_proxy.forwarding.request_headers import Prepared
    from icr_proxy.identifiers import TokenKey
    from icr_proxy.observability.outcome import Journal
    from icr_proxy.server.request import ClientBody
    from icr_proxy.upstream.interface import Upstream, UpstreamResponse


FIRST_REFUSAL = 400
YOUNG_SECONDS = 10.0  # a token refused at this age may not be known everywhere yet
YOUNG_PAUSE_SECONDS = 0.5
OUTDATED_MOST = 3  # tokens of one request that may expire or be dropped before it is sent
Repair = Literal["wait", "renew"]
"""What is done about a refused token before the request goes out again."""


class ForwardJob(msgspec.Struct, kw_only=True):
    """One request of a caller, ready to be sent once its token is known."""

    key: TokenKey | None
    """Whose token; `None` is the app's own signature."""
    organization: str | None = None
    """On which organization the installation must be, if the request names one."""
    method: str
    target: bytes
    prepared: Prepared
    """The headers to send, but for what is new in each request."""
    watched: Sequence[tuple[bytes, bytes]] | None = None
    """The headers that were received, if somebody watches what becomes of them."""
    body: ClientBody | None
    length: int | None
    changes_state: bool
    announce: Callable[[Journal], Awaitable[None]] | None = None
    """Awaited once, before the first byte of a change goes out."""
    outdated: int = 0
    """How many of its tokens expired or were dropped before it could be sent."""
    attempt: UpstreamRequest | None = None
    """What is being sent, or was; none if the API refused its token, and so did not act on it."""

    @property
    def is_sent(self) -> bool:
        """Whether the API may have acted on it, as far as what was sent tells."""
        return self.attempt is not None and self.attempt.sent

    @property
    def can_be_sent_again(self) -> bool:
        """Whether all of it is still here."""
        return self.body is None or self.body.can_rewind

    @property
    def may_wait(self) -> bool:
        """Whether to send it with the same token a moment later is harmless in any case."""
        return self.can_be_sent_again and not self.changes_state


class TokenOutdatedError(Exception):
    """The token was dropped or has expired since the request got it. Nothing was sent."""


# What is raised when the first byte should be written.
NOT_SENT = (TokenOutdatedError, InstallationBlockedError)


class HeaderLines(msgspec.Struct, kw_only=True, eq=False):
    """The header lines of one attempt, to be written when there is a connection for it.

    It knows no job: a job knows it, and only the garbage collector would find the two.
    """

    tokens: TokenCache
    key: TokenKey | None
    cached: CachedToken | None
    prepared: Prepared
    authorization: bytes
    journal: Journal
    watched: Sequence[tuple[bytes, bytes]] | None

    __repr__ = object.__repr__  # not what is secret in it

    def write(self) -> bytes:
        """Give the lines; note what became of those that were received, if somebody watches.

        This is the last moment before the first byte leaves. The request may have waited for a
        connection, for the audit trail, or to be sent again, and a block or a drop may have come.

        Raises:
            InstallationBlockedError: the installation was blocked meanwhile.
            TokenOutdatedError: the token must not be used any more.
        """
        if (
            self.cached is not None
            and self.key is not None
            and not self.tokens.may_be_sent(self.key, self.cached)
        ):
            raise TokenOutdatedError
        journal = self.journal
        new = self.authorization, journal.request_id.encode("ascii"), journal.trace.traceparent
        if self.watched is not None:
            journal.header_edits = header_edits(self.watched, self.prepared.lines(*new))
        return self.prepared.block(*new)


class Opened(msgspec.Struct, kw_only=True):
    """An answer whose head is here; `prefix` is what was read of its body to judge it."""

    response: UpstreamResponse
    prefix: bytes = b""


class Forwarder:
    """The way of a request through tokens and upstream."""

    def __init__(
        self,
        *,
        tokens: TokenCache,
        upstream: Upstream,
        signature: Callable[[], bytes],
        now: Callable[[], float],
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[None]],
        replayed: Callable[[str], None],
    ) -> None:
        """Send with `tokens` through `upstream`; `signature` gives the app's own credential."""
        self._tokens = tokens
        self._upstream = upstream
        self._signature = signature
        self._now = now
        self._clock = clock
        self._pause = pause
        self._replayed = replayed

    async def send_request(self, job: ForwardJob, journal: Journal) -> Opened:
        """Get the API's answer up to its head; whoever gets it must close it.

        As far as a request waits, it is all one coroutine: see `circuit_breaker.GuardedUpstream`.

        Raises:
            MintError: no token could be had, or the installation was blocked meanwhile.
            UpstreamError: no answer could be had.
            CallerError: the caller left or stopped while sending its body.
        """
        repair: Repair | None = None
        while True:
            cached = None
            if job.key is not None:
                cached = self._tokens.get_fresh(job.key) or await self._token(job.key, journal)
            request = self._begin(job, cached, journal)
            began = journal.sent_at = self._clock()
            if job.announce is not None and job.changes_state:
                await job.announce(journal)
                job.announce = None
            journal.attempts += 1
            try:
                response = await self._upstream.send(request)
            except (UpstreamError, *NOT_SENT) as error:
                retried = await self._retry(job, request, journal, first=error)
                if retried is None:
                    continue
                response = retried
            journal.first_byte = self._clock() - began
            if response.status < FIRST_REFUSAL and repair is None:
                return Opened(response=response)
            opened, refused = await classify_response(response)
            if job.key is None or cached is None:
                return opened
            repair = self._choose_repair(job, job.key, cached, refused=refused, last=repair)
            if repair is None:
                return opened
            response.close()
            if repair == "wait":
                await self._pause(YOUNG_PAUSE_SECONDS)
            job.attempt = None

    def _begin(
        self, job: ForwardJob, cached: CachedToken | None, journal: Journal
    ) -> UpstreamRequest:
        """Make what is sent, with this token or with the app's own signature."""
        if job.body is not None and journal.attempts:
            job.body.rewind()
        if cached is None:
            authorization = self._signature()
        else:
            check_organization(job, cached)
            authorization = cached.authorization
            journal.token = cached.token.fingerprint
            journal.token_generation = cached.generation
            journal.organization = cached.token.organization
        job.attempt = UpstreamRequest(
            method=job.method,
            target=job.target,
            lines=HeaderLines(
                tokens=self._tokens,
                key=job.key,
                cached=cached,
                prepared=job.prepared,
                authorization=authorization,
                journal=journal,
                watched=job.watched,
            ),
            body=job.body,
            length=job.length,
            is_write=job.changes_state,
        )
        return job.attempt

    def _choose_repair(
        self,
        job: ForwardJob,
        key: TokenKey,
        cached: CachedToken,
        *,
        refused: bool,
        last: Repair | None,
    ) -> Repair | None:
        """Count what came of the last repair; say what is done before it is sent again, if it is.

        One wait at most, and one renewal.
        """
        if last == "renew":
            if refused:
                self._tokens.refused(key, cached.generation)
            self._replayed("refused-again" if refused else "healed")
            return None
        if last == "wait":
            self._replayed("young-refused" if refused else "young-healed")
        elif refused and job.may_wait and self._may_be_too_young(cached):
            return "wait"
        return "renew" if refused and self._heals(job, key, cached) else None

    def _may_be_too_young(self, cached: CachedToken) -> bool:
        """Whether the API issued the token so lately that it may not know it everywhere yet."""
        return 0 <= self._now() - cached.token.minted_at < YOUNG_SECONDS

    def _heals(self, job: ForwardJob, key: TokenKey, cached: CachedToken) -> bool:
        """Drop the token that was refused; say whether the request can go out with a new one."""
        if not self._tokens.refused(key, cached.generation):
            self._replayed("limited")
            return False
        if not job.can_be_sent_again:
            self._replayed("body-too-long")
            return False
        return True

    async def _token(self, key: TokenKey, journal: Journal) -> CachedToken:
        """Wait for a token."""
        began = self._clock()
        try:
            return await self._tokens.get(key)
        finally:
            journal.token_wait += self._clock() - began

    async def _retry(
        self, job: ForwardJob, request: UpstreamRequest, journal: Journal, *, first: Exception
    ) -> UpstreamResponse | None:
        """Send once more, on a new connection, what the API provably did not act on.

        Give nothing if the request needs another token first; raise whatever else went wrong.
        """
        if not isinstance(first, UpstreamError) or isinstance(first, CircuitOpenError):
            take_back(job, journal, first)
            return None
        if not (job.can_be_sent_again and may_send_again(first, changes_state=job.changes_state)):
            raise first
        if job.body is not None:
            job.body.rewind()
        request.fresh = True
        attempts = journal.attempts
        journal.attempts += 1
        try:
            return await self._upstream.send(request)
        except CircuitOpenError:
            journal.attempts = attempts
            raise first from None  # it was not sent again, so what happened is the first failure
        except NOT_SENT as error:
            take_back(job, journal, error)
            return None
        finally:
            if journal.attempts > attempts:
                self._replayed("retried")


def check_organization(job: ForwardJob, cached: CachedToken) -> None:
    """Pass a token of the organization that the request names, as far as the API tells.

    The installation comes from the API's list, the token from a call of its own. If they disagree,
    one organization's token would go out with another's request.

    Raises:
        MintError: the token is another organization's.
    """
    named, told = job.organization, cached.token.organization
    if named is not None and told is not None and named != told:
        raise MintError(
            "the API issued a token for another organization than the request names",
            reason="wrong-installation",
        )


def take_back(job: ForwardJob, journal: Journal, error: Exception) -> None:
    """Count no attempt where no byte was sent; raise the error unless another token helps."""
    journal.attempts -= 1
    if not isinstance(error, TokenOutdatedError):
        raise error
    job.outdated += 1
    if job.outdated > OUTDATED_MOST:  # else tokens that live no time at all would be minted on
        raise MintError(
            "tokens were dropped or expired before the request could be sent", reason="expired"
        ) from None


def may_send_again(error: UpstreamError, *, changes_state: bool) -> bool:
    """Whether the API provably did not act on what was sent.

    Nothing was sent if connecting failed or the connection closed before the first write. A read
    may be repeated if it went into a reused connection and no byte of an answer came: the idle
    race (RFC 9112, 9.3.1). A write that was sent is never sent again.
    """
    if isinstance(error, UpstreamUnreachableError | UpstreamTlsError):
        return True
    if not isinstance(error, UpstreamBrokenError) or error.answered:
        return False
    return not error.sent or (error.reused and not changes_state)


async def classify_response(response: UpstreamResponse) -> tuple[Opened, bool]:
    """Classify a response: read as much as shows whether it rejects the token.

    Whatever keeps it from that ends the answer.
    """
    if response.status == UNAUTHORIZED:
        return Opened(response=response), True
    if not may_be_about_token(response.status, response.headers):
        return Opened(response=response), False
    prefix = bytearray()
    try:
        while len(prefix) <= INSPECT_LIMIT and (data := await response.read()):
            prefix += data
    except BaseException:
        response.close()
        raise
    small = len(prefix) <= INSPECT_LIMIT
    encoding = single(response.headers, b"content-encoding")
    refused = small and is_token_rejection(bytes(prefix), encoding=encoding)
    return Opened(response=response, prefix=bytes(prefix)), refused
