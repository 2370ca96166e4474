"""Stands before the pool and sends nothing while the circuit is open.

What counts against the API is what would have happened to any request: no connection, no trust, no
answer. An answer speaks for it whatever its status. That the caller left, that our connections were
all in use, or that an idle connection was closed under us says nothing of the API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import (
    UpstreamBrokenError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamLoopError,
    UpstreamTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.circuit import Circuit
    from proxy.upstream import Upstream, UpstreamRequest, UpstreamResponse


class Breaker:
    """An `upstream.Upstream` in front of another one."""

    def __init__(self, upstream: Upstream, *, circuit: Circuit, now: Callable[[], float]) -> None:
        self._upstream = upstream
        self._circuit = circuit
        self._now = now

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send once, or raise `CircuitOpenError` without sending."""
        circuit = self._circuit
        is_light = request.body is None and not request.is_write
        number = circuit.admit(now=self._now(), is_light=is_light)
        try:
            response = await self._upstream.send(request)
        except UpstreamError as error:
            if is_about_api(error):
                circuit.failed(number, now=self._now(), is_late=is_late(error))
            else:
                circuit.left(number, now=self._now())
            raise
        except BaseException:
            circuit.left(number, now=self._now())
            raise
        circuit.answered()
        return response


def is_about_api(error: UpstreamError) -> bool:
    """Whether it would have happened to any request.

    When the API is restarted, all idle connections break at once, and new ones are fine.
    """
    if isinstance(error, UpstreamBusyError | UpstreamLoopError):
        return False
    return not (isinstance(error, UpstreamBrokenError) and error.reused and not error.answered)


def is_late(error: UpstreamError) -> bool:
    """Whether the request reached the API, which may have been at work on it."""
    return isinstance(error, UpstreamTimeoutError) and error.sent
