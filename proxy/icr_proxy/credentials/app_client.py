"""Calls of the app itself, signed with the App JWT.

The clock comes in as a function; a `signing_key.Signer` makes the signature.

A 401 is about the key or the clock, and both can be corrected at once: the `Date` of the response
tells the API's clock, and the key ring may hold another key. So a refused call is repeated with the
clock corrected, then with the next key, before it fails. All these calls may be repeated: tokens
coexist (V, I), and listing changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import count
from typing import TYPE_CHECKING, Protocol

from icr_proxy.errors import (
    CircuitOpenError,
    ContentCodingError,
    MintError,
    MintTimeoutError,
    UpstreamBusyError,
    UpstreamCertificateError,
    UpstreamError,
    UpstreamLoopError,
    UpstreamMalformedError,
    UpstreamTimeoutError,
    UpstreamTlsError,
    UpstreamUnreachableError,
)
from icr_proxy.http1.content_coding import content_codings, decode
from icr_proxy.upstream.interface import UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from icr_proxy.credentials.signing_key import Signer
    from icr_proxy.errors import MintReason
    from icr_proxy.http1.headers import Header
    from icr_proxy.upstream.interface import Upstream, UpstreamResponse

RESOLUTION_SECONDS = 1.0  # `Date` has whole seconds, so less cannot be measured
# A clock farther off finds no certificate valid, so such a `Date` is wrong itself.
SKEW_MOST_SECONDS = 366 * 86400.0


def measure_skew(date: float, *, asked_at: float, answered_at: float) -> float:
    """Return the seconds by which the API's clock is ahead of ours, or 0 if none can be measured.

    `Date` is cut to whole seconds and may be from any moment between request and response.
    """
    skew = date + 0.5 - (asked_at + answered_at) / 2
    return skew if abs(skew) > RESOLUTION_SECONDS + abs(answered_at - asked_at) / 2 else 0.0


def learn_skew(headers: Sequence[Header], *, asked_at: float, answered_at: float) -> float | None:
    """Measure the skew by the `Date` of a response; `None` if that is missing or absurd."""
    date = server_date(headers)
    if date is None:
        return None
    skew = measure_skew(date, asked_at=asked_at, answered_at=answered_at)
    return skew if abs(skew) <= SKEW_MOST_SECONDS else None


def server_date(headers: Sequence[Header]) -> float | None:
    """Return the `Date` header (RFC 9110, 6.6.1) in seconds since the epoch, if it is usable."""
    for name, value in headers:
        if name.lower() == b"date":
            return http_date(value)
    return None


def http_date(value: bytes) -> float | None:
    """Parse a date in a header to seconds since the epoch; `None` if it is none."""
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
        # Dates of HTTP are always in UTC (RFC 9110, 5.6.7), said or not.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


# The documentation recommends 60 s in the past against drifting clocks (D).
BACKDATED_SECONDS = 60
# The limit is 600 s by the server's clock (D); a minute is left for a clock of ours that is fast.
LIFETIME_SECONDS = 540


def app_claims(app_id: str, *, now: float) -> dict[str, object]:
    """Return the payload of an App JWT at `now` (seconds since the epoch, server's clock).

    `alg` is listed among the required payload claims (D), and the vendor sends it (V), although
    RFC 7515 wants it in the header, where it is as well.
    """
    second = int(now)
    return {
        "iat": second - BACKDATED_SECONDS,
        "exp": second + LIFETIME_SECONDS,
        "iss": app_id,
        "alg": "RS256",
    }


SUCCESS = range(200, 300)  # the documentation says 200, the framework's default is 201 (A)
UNAUTHORIZED = 401
REFUSED = frozenset({UNAUTHORIZED})
# Whether a bad JWT is answered with 401 or 403 is not documented (A). Where a 403 may be about
# something else, a repeated call with another clock or key costs a call and does no harm.
PERHAPS_REFUSED = frozenset({UNAUTHORIZED, 403})
JWT_REUSE_SECONDS = 60.0  # one signature serves a burst of calls; well inside its 540 s
SKEW_WORTH_RETRYING = 5.0  # a larger skew than this explains a 401
OWN_MARK = b"x-icr-proxy-error"  # on responses of an icr-proxy itself, and on no others
NO_JWT = ("", 0.0, b"")  # key's fingerprint, time of signature by the API's clock, header value
NOT_ASKED = "the API could not be asked for {wanted}: "
UNDECODABLE = "the API's answer has a content coding that cannot be undone: "
# What a call that got no answer means for a mint: the reason, the sentence for the client, and
# whether the failure passes, where the reason does not tell. The first row that fits counts.
FAILED_CALLS: tuple[tuple[type[UpstreamError], MintReason, str, bool | None], ...] = (
    (UpstreamTimeoutError, "timeout", "the API took too long when asked for {wanted}", None),
    (UpstreamBusyError, "busy", "{detail}; {wanted} was not asked for", None),
    (
        CircuitOpenError,
        "circuit-open",
        "the API has failed many times in a row; {wanted} is not asked for at the moment",
        None,
    ),
    (
        ContentCodingError,
        "malformed",
        UNDECODABLE + "{detail}; it was asked for {wanted}",
        None,
    ),
    (
        UpstreamLoopError,
        "loop",
        NOT_ASKED + "its name leads back to an icr-proxy (upstream.address)",
        None,
    ),
    (UpstreamUnreachableError, "unreachable", NOT_ASKED + "it cannot be reached", None),
    (UpstreamCertificateError, "tls", NOT_ASKED + "its certificate is not trusted", False),
    (UpstreamTlsError, "tls", NOT_ASKED + "its certificate or the TLS handshake failed", None),
    (UpstreamMalformedError, "broken", NOT_ASKED + "its answer is not valid HTTP", False),
    (UpstreamError, "broken", NOT_ASKED + "the connection broke off", None),
)


class Signers(Protocol):
    """The keys an app may sign with; `key_ring.KeyRing` implements it."""

    def candidates(self) -> Sequence[Signer]:
        """Return the keys to try, the best first; there is at least one."""

    def accepted(self, fingerprint: str) -> None:
        """Record that the API accepted a signature of this key."""

    def refused(self, fingerprint: str) -> None:
        """Record that the API accepted another key, but not this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppResponse:
    """A whole response; `body` is `None` if it was longer than allowed."""

    status: int
    headers: list[Header]
    body: bytes | None = field(repr=False)  # it may hold a token
    asked_at: float
    """When the call was made, by our clock."""
    skew: float
    """The API's clock minus ours, as far as known when the response came."""


class AppClient:
    """Client of the API for signed calls; remembers clock skew and refused keys."""

    def __init__(
        self,
        *,
        app_id: str,
        signers: Signers,
        upstream: Upstream,
        headers: Sequence[Header],
        now: Callable[[], float],
        skewed: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._app_id = app_id
        self._signers = signers
        self._upstream = upstream
        self.headers = tuple(headers)
        """Sent with each call, beside the signature."""
        self._now = now
        self._skewed = skewed
        self._jwt = NO_JWT
        self._numbers = count(1)
        self._skew_from = 0  # number of the call whose response told the skew
        self.skew = 0.0
        """The API's clock minus ours, in seconds, as last seen."""

    def signature(self) -> bytes:
        """Return the value of `Authorization` with an App JWT of the best key."""
        return self._authorization(self._signers.candidates()[0])

    async def send(
        self, method: str, target: bytes, *, limit: int, refusals: Collection[int] = REFUSED
    ) -> AppResponse:
        """Make a call that may be repeated; read at most `limit` bytes of the response.

        The response has one of the statuses in `refusals` only if the API accepts no key with
        either clock; a 401 only if all of them got it.

        Raises:
            UpstreamError: there is no response.
        """
        refused: list[tuple[Signer, AppResponse]] = []
        for signer in self._signers.candidates():
            answer = await self._try_key(signer, method, target, limit=limit, refusals=refusals)
            if answer.status in SUCCESS:
                for other, _ in refused:
                    self._signers.refused(other.fingerprint)
                self._signers.accepted(signer.fingerprint)
            if answer.status not in refusals:
                return answer
            refused.append((signer, answer))
        answers = [answer for _, answer in refused]
        return next((each for each in answers if each.status != UNAUTHORIZED), answers[-1])

    async def _try_key(
        self, signer: Signer, method: str, target: bytes, *, limit: int, refusals: Collection[int]
    ) -> AppResponse:
        skew_before = self.skew
        answer = await self._send_once(signer, method, target, limit=limit, refusals=refusals)
        if answer.status not in refusals or abs(self.skew - skew_before) <= SKEW_WORTH_RETRYING:
            return answer
        return await self._send_once(signer, method, target, limit=limit, refusals=refusals)

    async def _send_once(
        self, signer: Signer, method: str, target: bytes, *, limit: int, refusals: Collection[int]
    ) -> AppResponse:
        authorization = self._authorization(signer)
        request = UpstreamRequest(
            method=method,
            target=target,
            headers=(*self.headers, (b"Authorization", authorization)),
            length=0 if method == "POST" else None,
        )
        number, asked_at = next(self._numbers), self._now()
        response = await send_repeatable(self._upstream, request)
        try:
            reject_icr_proxy(response.headers)
            self._learn_skew(response.headers, number=number, asked_at=asked_at)
            skew = self.skew
            # By now this may be the JWT of another key, or of the corrected clock.
            if response.status in refusals and self._jwt[2] == authorization:
                self._jwt = NO_JWT
            body = await read_limited(response, limit=limit)
            if body is not None and response.status in SUCCESS:  # of others the body is not used
                body = decode(body, content_codings(response.headers), limit=limit)
        finally:
            response.close()
        return AppResponse(
            status=response.status,
            headers=response.headers,
            body=body,
            asked_at=asked_at,
            skew=skew,
        )

    def _authorization(self, signer: Signer) -> bytes:
        server_now = self._now() + self.skew
        fingerprint, made_at, value = self._jwt
        # A new skew may make it a little negative; the claims leave room for that.
        is_usable = -SKEW_WORTH_RETRYING <= server_now - made_at < JWT_REUSE_SECONDS
        if fingerprint != signer.fingerprint or not is_usable:
            value = b"Bearer " + signer.sign(app_claims(self._app_id, now=server_now)).encode()
            self._jwt = (signer.fingerprint, server_now, value)
        return value

    def _learn_skew(self, headers: Sequence[Header], *, number: int, asked_at: float) -> None:
        """Take the skew from a response, unless the response to a later call came first."""
        skew = learn_skew(headers, asked_at=asked_at, answered_at=self._now())
        if skew is not None and number > self._skew_from:
            self._skew_from = number
            self.skew = skew
            self._skewed(skew)


def reject_icr_proxy(headers: Sequence[Header]) -> None:
    """Reject a response of an icr-proxy: its 403 would look like one about the installation.

    Raises:
        UpstreamLoopError: this proxy, behind a redirected port, or another one has responded.
    """
    if any(name.lower() == OWN_MARK for name, _ in headers):
        raise UpstreamLoopError("what answers in place of the API is an icr-proxy", answered=True)


async def read_limited(response: UpstreamResponse, *, limit: int) -> bytes | None:
    """Read a small body; `None` if it is longer than `limit` bytes."""
    parts = bytearray()
    while data := await response.read():
        parts += data
        if len(parts) > limit:
            return None
    return bytes(parts)


def mint_error(error: UpstreamError, *, wanted: str) -> MintError:
    """Give the mint error that `error` causes, for a call that asked for `wanted`: "a token"."""
    reason, sentence, is_transient = next(
        row[1:] for row in FAILED_CALLS if isinstance(error, row[0])
    )
    kind = MintTimeoutError if reason == "timeout" else MintError
    return kind(
        sentence.format(wanted=wanted, detail=error.detail),
        reason=reason,
        retry_after=error.retry_after,
        is_transient=is_transient,
    )


async def send_repeatable(upstream: Upstream, request: UpstreamRequest) -> UpstreamResponse:
    """Send a request that does no harm if it is sent twice; once more after the idle race.

    The race: the API closed a pooled connection before any byte of a response.

    Raises:
        UpstreamError: there is no response.
    """
    try:
        return await upstream.send(request)
    except UpstreamError as error:
        if not error.reused or error.answered:
            raise
    request.fresh = True
    return await upstream.send(request)
