"""A signed JWT goes in, an access token comes out, over HTTP.

The API's answer is not trusted further than needed: its size is bounded, its token must be fit for
a header, its installation must be the one asked for, its expiry must lie ahead.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import msgspec

from proxy.access import AccessToken, TokenKey
from proxy.errors import (
    AppKeyRefusedError,
    InstallationRefusedError,
    MintError,
    MintFailedError,
    MintTimeoutError,
    UpstreamError,
    UpstreamTimeoutError,
)
from proxy.minting import app_claims
from proxy.secret import Secret
from proxy.upstream import UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.keys import Signer
    from proxy.upstream import Upstream, UpstreamResponse

ANSWER_LIMIT = 64 * 1024  # bytes; a real answer has under one KiB
LONGEST_LIFETIME = 7200.0  # seconds: two hours (D); example values of `expiresAt` are placeholders
SKEW_LEAST = 1.0  # seconds; `Date` is whole seconds, so less cannot be told from none
JWT_REUSE_SECONDS = 60.0  # one signature serves a burst of mints; well inside its 540 s
SUCCESS = range(200, 300)  # the documentation says 200, the framework's default is 201 (A)
RETRY_AFTER_MOST = 3600.0  # seconds
UNAUTHORIZED = 401
ABOUT_INSTALLATION = frozenset({403, 404})
NO_JWT = ("", 0.0, b"")  # fingerprint of its key, when signed by the API's clock, header value


class TokenAnswer(msgspec.Struct, rename="camel"):
    """What is used of the API's `AppAccessToken` and `InstallationAccessToken`."""

    token: str
    expires_at: str | None = None
    installation_id: str | None = None
    # Shown to people and nothing else, so another shape must not stop a mint.
    organization_id: object = None
    permissions: object = None


class Exchange:
    """Mints: one call, one token or one `MintError`."""

    def __init__(
        self,
        *,
        app_id: str,
        signer: Callable[[], Signer],
        upstream: Upstream,
        headers: tuple[tuple[bytes, bytes], ...],
        timeout: float,
        now: Callable[[], float],
    ) -> None:
        self._app_id = app_id
        self._signer = signer
        self._upstream = upstream
        self._headers = headers
        self._timeout = timeout
        self._now = now
        self._jwt = NO_JWT
        self.skew = 0.0
        """The API's clock minus ours, in seconds, as last seen on a mint."""

    async def mint(self, key: TokenKey) -> AccessToken:
        """Exchange a JWT for the token of `key`.

        Raises:
            InstallationRefusedError: 403 or 404, about this installation.
            AppKeyRefusedError: 401, about our key or clock.
            MintFailedError: any other status, or an answer without a usable token.
            MintTimeoutError: `tokens.mint_timeout` passed.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._mint_by_their_clock(key)
        except (TimeoutError, UpstreamTimeoutError):
            raise MintTimeoutError("the API took too long to issue a token") from None
        except UpstreamError as exc:
            raise MintFailedError(
                "the API could not be asked for a token: it cannot be reached or broke off"
            ) from exc

    async def _mint_by_their_clock(self, key: TokenKey) -> AccessToken:
        """Mint; if a clock that differs may be why the JWT was refused, sign by theirs."""
        skew = self.skew
        try:
            return await self._mint(key)
        except AppKeyRefusedError:
            if abs(self.skew - skew) <= SKEW_LEAST:
                raise
            return await self._mint(key)

    async def _mint(self, key: TokenKey) -> AccessToken:
        request = UpstreamRequest(
            method="POST",
            target=key.path,
            headers=(*self._headers, (b"Authorization", self._authorization())),
            length=0,
        )
        asked_at = self._now()
        try:
            response = await self._upstream.send(request)
        except UpstreamError as exc:
            # The idle race: tokens coexist (V, I), so asking again costs nothing but a token.
            if not exc.reused or exc.answered:
                raise
            request.fresh = True
            response = await self._upstream.send(request)
        try:
            body = await read_limited(response, limit=ANSWER_LIMIT)
        finally:
            response.close()
        return self._judge(key, response, body, asked_at=asked_at)

    def _authorization(self) -> bytes:
        signer = self._signer()
        server_now = self._now() + self.skew
        fingerprint, made_at, value = self._jwt
        if fingerprint != signer.fingerprint or not 0 <= server_now - made_at < JWT_REUSE_SECONDS:
            value = b"Bearer " + signer.sign(app_claims(self._app_id, now=server_now)).encode()
            self._jwt = (signer.fingerprint, server_now, value)
        return value

    def _judge(
        self, key: TokenKey, response: UpstreamResponse, body: bytes | None, *, asked_at: float
    ) -> AccessToken:
        now = self._now()
        server_time = server_date(response.headers)
        if server_time is not None:
            self.skew = measure_skew(server_time, asked_at=asked_at, answered_at=now)
        if response.status not in SUCCESS:
            if response.status == UNAUTHORIZED:
                self._jwt = NO_JWT
            raise refusal(key, response, server_now=server_time or now + self.skew)
        if body is None:
            raise MintFailedError("the API's answer to a token request is far too large")
        answer = parse_answer(body)
        if answer.installation_id not in (None, key.installation):
            raise MintFailedError("the API issued a token for another installation")
        expires_at = asked_at + LONGEST_LIFETIME
        if answer.expires_at is not None:
            expires_at = min(expires_at, parse_time(answer.expires_at) - self.skew)
        if expires_at <= now:
            raise MintFailedError("the API issued a token that has expired already")
        secret = Secret(answer.token)
        return AccessToken(
            secret=secret,
            minted_at=now,
            expires_at=expires_at,
            fingerprint=secret.fingerprint,
            organization=text_or_none(answer.organization_id),
            permissions=levels(answer.permissions),
        )


def measure_skew(server_time: float, *, asked_at: float, answered_at: float) -> float:
    """Seconds by which the API's clock is ahead of ours, or 0 if none can be told.

    `Date` has whole seconds and may be from any moment between question and answer.
    """
    skew = server_time + 0.5 - (asked_at + answered_at) / 2
    return skew if abs(skew) > SKEW_LEAST + abs(answered_at - asked_at) / 2 else 0.0


def refusal(key: TokenKey, response: UpstreamResponse, *, server_now: float) -> MintError:
    """Say by its status what a failed mint is about."""
    status = response.status
    wait = retry_after(response.headers, server_now=server_now)
    if status == UNAUTHORIZED:
        return AppKeyRefusedError(
            "the API refused the app's signature; check app.id, the private key and the clock",
            retry_after=wait,
        )
    if status in ABOUT_INSTALLATION and key.installation is not None:
        return InstallationRefusedError(
            "the API issues no token for this installation; it is unknown, suspended or removed",
            retry_after=wait,
        )
    return MintFailedError("the API failed to issue a token", retry_after=wait)


def parse_answer(body: bytes) -> TokenAnswer:
    """Read the token answer.

    Raises:
        MintFailedError: it is not JSON of the expected shape, or its token is not fit for a header.
    """
    try:
        answer = msgspec.json.decode(body, type=TokenAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MintFailedError("the API's answer to a token request cannot be understood") from None
    token = answer.token
    if not token or not token.isascii() or not all("!" <= char <= "~" for char in token):
        raise MintFailedError("the API's answer holds no usable token")
    return answer


def parse_time(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time, with or without milliseconds.

    Raises:
        MintFailedError: it is not a time, or names no zone.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise MintFailedError("the API issued a token whose expiry cannot be understood")


def text_or_none(found: object) -> str | None:
    """Keep a name for people if it is one."""
    return found if isinstance(found, str) else None


def levels(found: object) -> dict[str, str]:
    """Keep the permissions that have the documented shape."""
    if not isinstance(found, dict):
        return {}
    return {name: level for name, level in found.items() if isinstance(level, str)}


def server_date(headers: list[tuple[bytes, bytes]]) -> float | None:
    """Seconds since the epoch of the `Date` header (RFC 9110, 6.6.1), if it has a usable one."""
    for name, value in headers:
        if name.lower() == b"date":
            return http_date(value)
    return None


def retry_after(headers: list[tuple[bytes, bytes]], *, server_now: float) -> float | None:
    """Seconds of a `Retry-After` (RFC 9110, 10.2.3), which is a number or a date."""
    for name, value in headers:
        if name.lower() == b"retry-after":
            if value.isdigit():
                return min(float(value), RETRY_AFTER_MOST)
            moment = http_date(value)
            if moment is not None:
                return max(0.0, min(moment - server_now, RETRY_AFTER_MOST))
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
