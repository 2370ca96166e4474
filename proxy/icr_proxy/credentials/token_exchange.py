"""Token exchange: a signed call returns an access token; and revocation at the exit.

The response is not trusted further than needed: its size is bounded, its token must be fit for a
header, its installation must be the one asked for, its expiry must lie ahead. Signatures, clocks
and keys are the business of `app_client`.

A token is revoked by a DELETE that it authorizes itself (D). Failures are counted and not repeated:
a token that is left expires within two hours.
"""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.credentials.access_token import AccessToken
from icr_proxy.credentials.app_client import (
    PERHAPS_REFUSED,
    SUCCESS,
    UNAUTHORIZED,
    http_date,
    mint_error,
    send_repeatable,
    server_date,
)
from icr_proxy.errors import (
    DECODE_ERRORS,
    AppKeyRefusedError,
    InstallationRefusedError,
    MintError,
    MintReason,
    MintTimeoutError,
    UpstreamError,
)
from icr_proxy.identifiers import TokenKey, canonical_id
from icr_proxy.redaction import Secret
from icr_proxy.upstream.interface import UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from icr_proxy.credentials.app_client import AppClient, AppResponse
    from icr_proxy.upstream.interface import Upstream

ANSWER_LIMIT = 64 * 1024  # bytes; a real answer has under one KiB
LONGEST_LIFETIME = 7200.0  # seconds: two hours (D); example values of `expiresAt` are placeholders
# For a token whose expiry the API does not send, or not in a known form. Short, because the token
# may expire at any time; long enough that one mint serves many requests.
ASSUMED_LIFETIME = 600.0
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # RFC 8259, 8.1: a parser may ignore it
RETRY_AFTER_MOST = 3600.0  # seconds
BAD_REQUEST = 400
ABOUT_INSTALLATION = frozenset({403, 404})
# RFC 9110, 15.5.9 and RFC 8470, 5.2, and RFC 6585, 4: the same request may succeed later.
TRANSIENT_STATUSES = frozenset({408, 425, 429})
# `datetime` knows no second 60, and RFC 3339, 5.7 does.
LEAP_SECOND = re.compile(r"(?<=[T ]\d\d:\d\d:)60")
# Spellings of an offset, in ISO 8601 or of other languages, that `datetime` does not accept.
OFFSETS = ((" UTC", "Z"), (" GMT", "Z"), (" +", "+"), (" -", "-"), ("\N{MINUS SIGN}", "-"))
# The reason for a status that is in no other rule, by its first digit.
BY_HUNDREDS: dict[int, MintReason] = {3: "redirect", 4: "status-4xx", 5: "status-5xx"}


class TokenResponse(msgspec.Struct, rename="camel"):
    """The members used of the API's `AppAccessToken` and `InstallationAccessToken`."""

    token: str | None = None
    installation_id: str | None = None
    is_active: object = None
    # An unknown shape shortens the lifetime of the token and must not stop a mint.
    expires_at: object = None
    # Only shown to people, so an unknown shape must not stop a mint.
    organization_id: object = None
    permissions: object = None


class TokenExchange:
    """Mints tokens: one call returns one token or raises one `MintError`."""

    def __init__(self, *, calls: AppClient, timeout: float, now: Callable[[], float]) -> None:
        self._calls = calls
        self._timeout = timeout
        self._now = now

    async def mint(self, key: TokenKey) -> AccessToken:
        """Mint the token of `key`.

        Raises:
            InstallationRefusedError: 403 or 404, about this installation.
            AppKeyRefusedError: 401, about our key or clock.
            MintError: any other status, no answer, or one without a usable token.
            MintTimeoutError: `tokens.mint_timeout` passed.
        """
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._calls.send(
                    "POST", key.path, limit=ANSWER_LIMIT, refusals=PERHAPS_REFUSED
                )
        except TimeoutError:
            raise MintTimeoutError("the API took too long to issue a token") from None
        except UpstreamError as exc:
            raise mint_error(exc, wanted="a token") from exc
        return parse_token_response(key, answer, now=self._now())


def parse_token_response(key: TokenKey, answer: AppResponse, *, now: float) -> AccessToken:
    """Parse the token in a response.

    Raises:
        MintError: there is none, or none that may be used.
    """
    if answer.status not in SUCCESS:
        raise refusal(key, answer, server_now=server_date(answer.headers) or now + answer.skew)
    if answer.body is None:
        raise MintError("the API's answer to a token request is far too large", reason="too-large")
    found = parse_body(answer.body)
    secret = Secret(usable_token(found))
    if found.installation_id is not None and not is_same_id(
        found.installation_id, key.installation
    ):
        raise MintError(
            "the API issued a token for another installation", reason="wrong-installation"
        )
    expiry = parse_time(found.expires_at)
    if expiry is None:
        expires_at = answer.asked_at + ASSUMED_LIFETIME
    else:
        expires_at = min(expiry - answer.skew, answer.asked_at + LONGEST_LIFETIME)
    if expires_at <= now:
        raise MintError("the API issued a token that has expired already", reason="expired")
    return AccessToken(
        secret=secret,
        minted_at=now,
        expires_at=expires_at,
        is_expiry_told=expiry is not None,
        fingerprint=secret.fingerprint,
        organization=id_or_none(found.organization_id),
        permissions=permission_levels(found.permissions),
    )


def is_same_id(found: str, asked: str | None) -> bool:
    """Return whether both name one installation."""
    return asked is not None and canonical_id(found) == canonical_id(asked)


def refusal(key: TokenKey, answer: AppResponse, *, server_now: float) -> MintError:
    """Return the error for the status of a failed mint."""
    status = answer.status
    wait = retry_after(answer.headers, server_now=server_now)
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
    reason = BY_HUNDREDS.get(status // 100, "malformed")
    if status == BAD_REQUEST:  # what an unsupported version gets (D-old)
        return MintError(
            "the API took the request for a token for a bad one; check upstream.api_version",
            reason=reason,
            retry_after=wait,
        )
    return MintError(
        "the API failed to issue a token",
        reason=reason,
        retry_after=wait,
        is_transient=True if status in TRANSIENT_STATUSES else None,
    )


def parse_body(body: bytes) -> TokenResponse:
    """Parse the body of a token response.

    Raises:
        MintError: it is not JSON of the expected shape.
    """
    try:
        return msgspec.json.decode(body.removeprefix(BYTE_ORDER_MARK), type=TokenResponse)
    except DECODE_ERRORS:
        raise MintError(
            "the API's answer to a token request cannot be understood", reason="malformed"
        ) from None


def usable_token(found: TokenResponse) -> str:
    """Return the token of a response, if it is fit for a header and active.

    Raises:
        MintError: it is not.
    """
    token = found.token
    if not token or not token.isascii() or not all("!" <= char <= "~" for char in token):
        raise MintError("the API's answer holds no usable token", reason="no-token")
    if found.is_active is False:
        raise MintError("the API issued a token that is not active", reason="no-token")
    return token


def parse_time(told: object) -> float | None:
    """Seconds since the epoch of a time in RFC 3339 or ISO 8601; `None` if it has no zone."""
    if not isinstance(told, str):
        return None
    text = told.strip().upper()  # RFC 3339, 5.6: `T` and `Z` may be lower case
    for written, meant in OFFSETS:
        text = text.replace(written, meant)
    text, leaps = LEAP_SECOND.subn("59", text)
    try:
        moment = datetime.fromisoformat(text)
        return moment.timestamp() + leaps if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def id_or_none(found: object) -> str | None:
    """Return an ID if it is text; it is only shown."""
    return canonical_id(found) if isinstance(found, str) else None


def permission_levels(found: object) -> dict[str, str]:
    """Return the permissions that have the documented shape."""
    if not isinstance(found, dict):
        return {}
    return {name: level for name, level in found.items() if isinstance(level, str)}


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


TARGET = b"/app/installations/token"  # for tokens of the app, too: it kills the one in the header
REVOKED = range(200, 300)  # which one of them is not documented (A)
REVOKED_BEFORE = frozenset({401, 403})  # (A)
CONCURRENT_MOST = 10


class Revocation(msgspec.Struct):
    """Result of a revocation; `left` tokens were not tried, or not to the end."""

    left: int
    revoked: int = 0
    failed: int = 0


class Revoker:
    """Revokes tokens at the API."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        headers: Sequence[tuple[bytes, bytes]],
        timeout: float,
        connections: int,
    ) -> None:
        """Revoke through `upstream` with its number of connections; a call may take `timeout`."""
        self._upstream = upstream
        self.headers = tuple(headers)
        """Sent with each request, beside the token."""
        self._timeout = timeout
        self._workers = min(CONCURRENT_MOST, connections)

    async def revoke(self, tokens: Sequence[AccessToken], *, seconds: float) -> Revocation:
        """Revoke these tokens, some at once, and stop after so many seconds."""
        result = Revocation(left=len(tokens))
        if seconds <= 0:
            return result
        waiting = iter(tokens)
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as workers:
                for number in range(min(self._workers, len(tokens))):
                    workers.create_task(self._revoke_each(waiting, result), name=f"revoke-{number}")
        except TimeoutError:
            pass  # `left` says how many
        return result

    async def _revoke_each(self, waiting: Iterator[AccessToken], result: Revocation) -> None:
        for token in waiting:
            is_revoked = await self._revoke(token)
            result.left -= 1
            if is_revoked:
                result.revoked += 1
            else:
                result.failed += 1

    async def _revoke(self, token: AccessToken) -> bool:
        authorization = b"Bearer " + token.secret.reveal().encode("ascii")
        request = UpstreamRequest(
            method="DELETE",
            target=TARGET,
            headers=(*self.headers, (b"Authorization", authorization)),
        )
        try:
            async with asyncio.timeout(self._timeout):
                response = await send_repeatable(self._upstream, request)
                try:
                    while await response.read():
                        pass  # to its end, so that the connection serves the next one
                finally:
                    response.close()
        except (TimeoutError, UpstreamError):
            return False
        return response.status in REVOKED or response.status in REVOKED_BEFORE
