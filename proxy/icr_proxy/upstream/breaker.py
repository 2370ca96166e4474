"""Stands before the pool and sends nothing while the circuit is open.

What counts against the API is what would have happened to any request: no connection, no trust, no
answer. An answer speaks for it whatever its status. That the caller left, that our connections were
all in use, or that an idle connection was closed under us says nothing of the API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from icr_proxy.errors import (
    UpstreamBrokenError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamLoopError,
    UpstreamTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from icr_proxy.upstream.circuit_breaker import Circuit
    from icr_proxy.upstream.interface import UpstreamRequest, UpstreamResponse


class Engine(Protocol):
    """What sends, and asks and tells a breaker about it."""

    async def send(
        self, request: UpstreamRequest, breaker: Breaker | None = None
    ) -> UpstreamResponse:
        """Send once and wait for the head of the answer."""


class Breaker:
    """An `upstream.Upstream` in front of an engine.

    It sends itself along instead of waiting for what comes: each coroutine in which a request waits
    costs it a place in memory, which is cold by the time the answer comes.
    """

    def __init__(self, engine: Engine, *, circuit: Circuit, now: Callable[[], float]) -> None:
        self._engine = engine
        self._circuit = circuit
        self._now = now

    def send(self, request: UpstreamRequest) -> Coroutine[Any, Any, UpstreamResponse]:
        """Send once, or raise `CircuitOpenError` without sending."""
        return self._engine.send(request, self)

    def admit(self, request: UpstreamRequest) -> int:
        """Let it be sent; how it ended is told with this number.

        Raises:
            CircuitOpenError: it must not.
        """
        is_light = request.body is None and not request.is_write
        return self._circuit.admit(now=self._now(), is_light=is_light)

    def answered(self) -> None:
        """There is an answer."""
        self._circuit.answered()

    def failed(self, number: int, error: BaseException) -> None:
        """There will be none."""
        if isinstance(error, UpstreamError) and is_about_api(error):
            self._circuit.failed(number, now=self._now(), is_late=is_late(error))
        else:
            self._circuit.left(number, now=self._now())


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
