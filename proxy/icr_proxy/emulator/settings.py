"""The emulator's settings, its clock, and the faults that tests order.

Every default is the choice that the evidence favours; the alternatives are what else was seen or
must be expected. Nothing else in the emulator is configurable.

Tokens, reservations, dates in answers and the `Date` header all follow it, so that a test of
clock skew or of expiry needs no waiting.

Three queues, so that a fault meets the call it was meant for: `mints` (both POSTs that make
tokens), `app` (all else under `/app`), `requests` (everything else, the playground included).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final, Literal

from icr_proxy.emulator.registry.entities import APP_ID

# What each uncertain status may be. A value outside is a typing mistake, not an experiment.
ALLOWED_STATUSES: Final[dict[str, tuple[int, ...]]] = {
    "invalid_token_status": (403, 401),  # 403 was observed once (T), 401 is HTTP's word for it
    "mint_status": (200, 201),  # the documentation says 200, the framework's default is 201 (A)
    "unknown_installation_status": (404, 403),  # not documented (A)
    "bad_jwt_status": (401, 403),  # not documented (A)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorSettings:
    """What one emulator is like; `ValueError` if it could not be like that."""

    host: str = "127.0.0.1"
    port: int = 0
    app_id: str = APP_ID
    installations: int = 3
    # Held of each seeded credit, in tonnes: thousands of retirements of 1 do not exhaust it.
    credits: int | float = 1_000_000
    token_lifetime: float = 7200.0  # two hours for installations (D)
    invalid_token_status: int = 403
    mint_status: int = 200
    unknown_installation_status: int = 404
    bad_jwt_status: int = 401
    milliseconds: bool = True  # dates with and without milliseconds both appear (A)
    latency: float = 0.0
    jwt_leeway: float = 5.0
    # The page lists `alg` among the required payload claims (D); whether it is enforced: unknown.
    require_alg_claim: bool = False
    request_log_size: int = 20_000

    def __post_init__(self) -> None:
        for name, allowed in ALLOWED_STATUSES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} is {value}, must be one of {list(allowed)}")
        for name in ("installations", "credits", "latency", "jwt_leeway", "request_log_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must not be negative")
        if self.token_lifetime <= 0:
            raise ValueError(f"token_lifetime is {self.token_lifetime}, must be positive")


DEFAULTS: Final = EmulatorSettings()


class Clock:
    """A time source plus a shift in seconds."""

    __slots__ = ("_source", "shift")

    def __init__(self, source: Callable[[], float]) -> None:
        self._source = source
        self.shift = 0.0

    def now(self) -> float:
        """Tell the emulator's time as a POSIX timestamp."""
        return self._source() + self.shift

    def http_date(self) -> str:
        """Tell the time as a `Date` header wants it."""
        return formatdate(self.now(), usegmt=True)


def iso_date(timestamp: float, *, milliseconds: bool) -> str:
    """Write a date as the API does: ISO 8601 with `Z` (D)."""
    moment = datetime.fromtimestamp(timestamp, UTC)
    text = moment.isoformat(timespec="milliseconds" if milliseconds else "seconds")
    return text.replace("+00:00", "Z")


Kind = Literal["status", "malformed", "empty", "hang", "reset", "truncated", "slow"]
When = Literal["head", "before", "after"]

KINDS: Final[tuple[Kind, ...]] = (
    "status",  # answers `status`, with `body` and `headers`
    "malformed",  # answers 200 with JSON that breaks off in the middle
    "empty",  # answers 200 without a body
    "hang",  # answers nothing until the emulator stops, or cuts off after `seconds`
    "reset",  # cuts the connection off without an answer
    "truncated",  # announces a body, sends half of it, closes the connection
    "slow",  # waits `seconds`, then goes on as if nothing had been
)

# When the fault strikes: on the request's head with its body unread, with the body read but
# nothing done, or after the API has acted: the credits have moved and nobody is told.
MOMENTS: Final[tuple[When, ...]] = ("head", "before", "after")


_LOWEST: Final = 200
_HIGHEST: Final = 599
_MAX_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong once."""

    kind: Kind
    status: int = 503
    body: str | bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    when: When = "before"

    def __post_init__(self) -> None:
        # 1xx would not end the exchange, and beyond 599 nobody knows what is meant.
        if not _LOWEST <= self.status <= _HIGHEST:
            raise ValueError(f"status must be between {_LOWEST} and {_HIGHEST}")
        if self.seconds is not None and not 0 <= self.seconds <= _MAX_SECONDS:
            raise ValueError(f"seconds must be between 0 and {_MAX_SECONDS:g}")


class Faults:
    """The queues of faults that are still to come."""

    def __init__(self) -> None:
        self.mints: deque[Fault] = deque()
        self.app: deque[Fault] = deque()
        self.requests: deque[Fault] = deque()

    def clear(self) -> None:
        """Clear all queued faults."""
        for queue in self.queues().values():
            queue.clear()

    def queues(self) -> dict[str, deque[Fault]]:
        """Name the queues."""
        return {"mints": self.mints, "app": self.app, "requests": self.requests}

    def next_for(self, queue: str) -> Fault | None:
        """Take the fault that the present call meets, if any."""
        waiting = self.queues()[queue]
        return waiting.popleft() if waiting else None
