"""Requests that the app itself makes, signed with the App JWT: minting, and listing installations.

A 401 is about the key or about the clock, and both can be mended on the spot: the answer's `Date`
tells the API's clock, and a ring of keys may hold another one. So a refused call is made again
with the clock corrected, then with the next key, before anybody hears of it. All these calls may
be repeated: tokens coexist (V, I), and listing changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol

from proxy.errors import UpstreamError
from proxy.minting import app_claims
from proxy.upstream import UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.keys import Signer
    from proxy.upstream import Upstream, UpstreamResponse

Header = tuple[bytes, bytes]

UNAUTHORIZED = 401
# What else an answer says of the key is not documented: a 5xx comes from a gateway, a 403 may be
# about the JWT as well (A).
SUCCESS = range(200, 300)
JWT_REUSE_SECONDS = 60.0  # one signature serves a burst of calls; well inside its 540 s
SKEW_NOISE_SECONDS = 1.0  # `Date` has whole seconds, so less cannot be told from none
SKEW_WORTH_RETRYING = 5.0  # a 401 is put down to the clock if that was off by more than this
# A clock farther off finds no certificate valid, so such a `Date` is wrong itself.
SKEW_MOST = 366 * 86400.0
NO_JWT = ("", 0.0, b"")  # fingerprint of its key, when signed by the API's clock, header value


class Signers(Protocol):
    """The keys an app may sign with; `keys.KeyRing` is one."""

    def candidates(self) -> Sequence[Signer]:
        """Give the keys to try, the best first; there is at least one."""

    def accepted(self, fingerprint: str) -> None:
        """The API took a signature of this key."""

    def refused(self, fingerprint: str) -> None:
        """The API took another key's signature, but not this one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppAnswer:
    """An answer as a whole; `body` is `None` if it was longer than it may be."""

    status: int
    headers: list[Header]
    body: bytes | None = field(repr=False)  # it may hold a token


class AppCalls:
    """Makes signed calls and keeps what it learns about clock and keys."""

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
        self._headers = tuple(headers)
        self._now = now
        self._skewed = skewed
        self._jwt = NO_JWT
        self.skew = 0.0
        """The API's clock minus ours, in seconds, as last seen."""

    def signature(self) -> bytes:
        """Give the value of `Authorization` that carries an App JWT of the best key."""
        return self._authorization(self._signers.candidates()[0])

    async def send(self, method: str, target: bytes, *, limit: int) -> AppAnswer:
        """Make a call that may be repeated; read at most `limit` bytes of its answer.

        The answer is a 401 only if no key with no correction of the clock is taken.

        Raises:
            UpstreamError: there is no answer.
        """
        refused: list[str] = []
        for signer in self._signers.candidates():
            answer = await self._with_key(signer, method, target, limit=limit)
            if answer.status in SUCCESS:
                for fingerprint in refused:
                    self._signers.refused(fingerprint)
                self._signers.accepted(signer.fingerprint)
            if answer.status != UNAUTHORIZED:
                return answer
            refused.append(signer.fingerprint)
        return answer

    async def _with_key(
        self, signer: Signer, method: str, target: bytes, *, limit: int
    ) -> AppAnswer:
        believed = self.skew
        answer = await self._once(signer, method, target, limit=limit)
        if answer.status != UNAUTHORIZED or abs(self.skew - believed) <= SKEW_WORTH_RETRYING:
            return answer
        return await self._once(signer, method, target, limit=limit)

    async def _once(self, signer: Signer, method: str, target: bytes, *, limit: int) -> AppAnswer:
        authorization = self._authorization(signer)
        request = UpstreamRequest(
            method=method,
            target=target,
            headers=(*self._headers, (b"Authorization", authorization)),
            length=0 if method == "POST" else None,
        )
        asked_at = self._now()
        response = await self._send(request)
        try:
            self._learn_skew(response.headers, asked_at=asked_at, answered_at=self._now())
            # By now it may hold another key's, or one by the corrected clock.
            if response.status == UNAUTHORIZED and self._jwt[2] == authorization:
                self._jwt = NO_JWT
            body = await read_limited(response, limit=limit)
        finally:
            response.close()
        return AppAnswer(status=response.status, headers=response.headers, body=body)

    async def _send(self, request: UpstreamRequest) -> UpstreamResponse:
        try:
            return await self._upstream.send(request)
        except UpstreamError as error:
            # The idle race: the API closed a connection that lay in the pool.
            if not error.reused or error.answered:
                raise
        request.fresh = True
        return await self._upstream.send(request)

    def _authorization(self, signer: Signer) -> bytes:
        server_now = self._now() + self.skew
        fingerprint, made_at, value = self._jwt
        # A little below zero is the skew measured anew, and the claims leave room for it.
        is_usable = -SKEW_WORTH_RETRYING <= server_now - made_at < JWT_REUSE_SECONDS
        if fingerprint != signer.fingerprint or not is_usable:
            value = b"Bearer " + signer.sign(app_claims(self._app_id, now=server_now)).encode()
            self._jwt = (signer.fingerprint, server_now, value)
        return value

    def _learn_skew(
        self, headers: Sequence[Header], *, asked_at: float, answered_at: float
    ) -> None:
        date = server_date(headers)
        if date is None:
            return
        skew = measure_skew(date, asked_at=asked_at, answered_at=answered_at)
        if abs(skew) <= SKEW_MOST:
            self.skew = skew
            self._skewed(skew)


def measure_skew(date: float, *, asked_at: float, answered_at: float) -> float:
    """Seconds by which the API's clock is ahead of ours, or 0 if none can be told.

    `Date` is cut to whole seconds and may be from any moment between question and answer.
    """
    skew = date + 0.5 - (asked_at + answered_at) / 2
    return skew if abs(skew) > SKEW_NOISE_SECONDS + abs(answered_at - asked_at) / 2 else 0.0


def server_date(headers: Sequence[Header]) -> float | None:
    """Seconds since the epoch of the `Date` header (RFC 9110, 6.6.1), if it has a usable one."""
    for name, value in headers:
        if name.lower() == b"date":
            return http_date(value)
    return None


def http_date(value: bytes) -> float | None:
    """Seconds since the epoch of a date in a header, if it is one."""
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
        # Dates of HTTP are always in UTC (RFC 9110, 5.6.7), said or not.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


async def read_limited(response: UpstreamResponse, *, limit: int) -> bytes | None:
    """Read a small body; `None` if it is longer than `limit` bytes."""
    parts = bytearray()
    while data := await response.read():
        parts += data
        if len(parts) > limit:
            return None
    return bytes(parts)
