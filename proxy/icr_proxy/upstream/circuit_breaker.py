"""Circuit breaker: after many failures in a row nothing is sent for a while.

closed     everything passes; an answer ends a run of failures.
open       nothing passes until a pause is over.
half_open  one request passes as a probe, and what becomes of it decides.

An answer is believed whenever it comes: the API has just given it. A failure counts only if its
request began in the present round: one that was sent before the last change says nothing new.

What counts against the API is what would have happened to any request: no connection, no trust, no
answer. An answer speaks for it whatever its status. That the caller left, that our connections were
all in use, or that an idle connection was closed under us says nothing of the API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from icr_proxy.backoff import Backoff
from icr_proxy.errors import (
    CircuitOpenError,
    UpstreamBrokenError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamLoopError,
    UpstreamTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from icr_proxy.upstream.interface import UpstreamRequest, UpstreamResponse

State = Literal["closed", "open", "half_open"]
STATES: tuple[State, ...] = ("closed", "open", "half_open")

GROWTH_MOST = 8  # times the first pause; doubled with each probe that fails
JITTER_SHARE = 0.2  # so that many proxies do not probe together
# Of a pause, added for what cannot be repeated or takes long to send: a read makes a better probe.
HEAVY_SHARE = 0.2
LATE_LEAST = 2  # a single slow answer opens nothing, however few failures are configured


class CircuitBreaker:
    """A circuit breaker: its state, and the failures in a row. Time is whatever `now` counts."""

    def __init__(
        self,
        *,
        failures: int,
        pause: float,
        random: Callable[[], float],
        moved: Callable[[CircuitBreaker], None],
    ) -> None:
        """Open after so many `failures` in a row, for `pause` seconds at first."""
        self._limit = failures
        self._backoff = Backoff(first=pause, most=GROWTH_MOST * pause, jitter=JITTER_SHARE)
        self._random = random
        self._moved = moved
        self._round = 0
        self._openings = 0
        self._next_probe = 0.0
        self.state: State = "closed"
        self.failures = 0
        """How many there were in a row."""
        self.pause = 0.0
        """How many seconds the last one was to last."""

    def allow_request(self, *, now: float, is_light: bool) -> int:
        """Allow a request, as a probe if need be; its result is told with this number.

        Raises:
            CircuitOpenError: the API is not to be asked now.
        """
        if self.state == "closed":
            return self._round
        wait = self._next_probe - now + (0.0 if is_light else HEAVY_SHARE * self.pause)
        if wait > 0:
            raise CircuitOpenError(
                "the API has failed many times in a row and is not asked for a moment",
                retry_after=wait if self.state == "open" else None,
            )
        # One at a time; but one that hangs must not shut everybody out.
        self._next_probe = now + self._backoff.most
        self._round += 1
        if self.state == "open":
            self._move("half_open")
        return self._round

    def answered(self) -> None:
        """The API gave an answer, whatever it says."""
        self.failures = 0
        if self.state != "closed":
            self._round += 1
            self._openings = 0
            self._move("closed")

    def failed(self, number: int, *, now: float, is_late: bool = False) -> None:
        """The API could not be asked, or gave no answer; `is_late` if it may only be slow."""
        if number != self._round:
            return
        self.failures += 1
        least = max(self._limit, LATE_LEAST) if is_late else self._limit
        if self.state == "half_open" or self.failures >= least:
            self._open(now)

    def left(self, number: int, *, now: float) -> None:
        """Nothing was learnt from the request: the next one may probe."""
        if number == self._round:
            self._next_probe = now

    def _open(self, now: float) -> None:
        self._openings += 1
        self._round += 1
        self.pause = self._backoff.pause(self._openings, chance=self._random())
        self._next_probe = now + self.pause
        self._move("open")

    def _move(self, state: State) -> None:
        self.state = state
        self._moved(self)


class Engine(Protocol):
    """What sends, and asks and tells a breaker about it."""

    async def send(
        self, request: UpstreamRequest, breaker: GuardedUpstream | None = None
    ) -> UpstreamResponse:
        """Send once and wait for the head of the answer."""


class GuardedUpstream:
    """An `interface.Upstream` in front of an engine.

    It sends itself along instead of waiting for what comes: each coroutine in which a request waits
    costs it a place in memory, which is cold by the time the answer comes.
    """

    def __init__(
        self, engine: Engine, *, circuit: CircuitBreaker, now: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._circuit = circuit
        self._now = now

    def send(self, request: UpstreamRequest) -> Coroutine[Any, Any, UpstreamResponse]:
        """Send once, or raise `CircuitOpenError` without sending."""
        return self._engine.send(request, self)

    def allow_request(self, request: UpstreamRequest) -> int:
        """Allow a request; its result is told with this number.

        Raises:
            CircuitOpenError: it must not.
        """
        is_light = request.body is None and not request.is_write
        return self._circuit.allow_request(now=self._now(), is_light=is_light)

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
