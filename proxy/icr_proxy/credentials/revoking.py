"""Kills the tokens we made at the API, in the time that is left before the program ends.

A token is killed by deleting it with itself (D). What comes of it is counted and nothing more is
done about it: a token that is left expires by itself within two hours.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.credentials.app_client import send_repeatable
from icr_proxy.errors import UpstreamError
from icr_proxy.upstream.interface import UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from icr_proxy.credentials.access_token import AccessToken
    from icr_proxy.upstream.interface import Upstream

TARGET = b"/app/installations/token"  # for tokens of the app, too: it kills the one in the header
SUCCESS = range(200, 300)  # which of them is not documented (A)
DEAD_ALREADY = frozenset({401, 403})  # (A)
AT_ONCE = 10


class Revocation(msgspec.Struct):
    """What became of the tokens; `left` were not tried, or not to the end."""

    left: int
    revoked: int = 0
    failed: int = 0


class Revoker:
    """Sends the requests."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        headers: Sequence[tuple[bytes, bytes]],
        timeout: float,
        connections: int,
    ) -> None:
        """Revoke through `upstream`, which has so many connections; each may take `timeout`."""
        self._upstream = upstream
        self.headers = tuple(headers)
        """Sent with each request, beside the token."""
        self._timeout = timeout
        self._at_once = min(AT_ONCE, connections)

    async def revoke(self, tokens: Sequence[AccessToken], *, seconds: float) -> Revocation:
        """Revoke these tokens, some at once, and stop after so many seconds whatever is left."""
        result = Revocation(left=len(tokens))
        if seconds <= 0:
            return result
        waiting = iter(tokens)
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as workers:
                for number in range(min(self._at_once, len(tokens))):
                    workers.create_task(self._work(waiting, result), name=f"revoke-{number}")
        except TimeoutError:
            pass  # `left` says how many
        return result

    async def _work(self, waiting: Iterator[AccessToken], result: Revocation) -> None:
        for token in waiting:
            is_dead = await self._kill(token)
            result.left -= 1
            if is_dead:
                result.revoked += 1
            else:
                result.failed += 1

    async def _kill(self, token: AccessToken) -> bool:
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
        return response.status in SUCCESS or response.status in DEAD_ALREADY
