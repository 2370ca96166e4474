"""What is to go wrong with the next calls: queues of orders, each consumed by one call.

Three queues, so that a fault meets the call it was meant for: `mints` (both POSTs that make
tokens), `app` (all else under `/app`), `requests` (everything else, the playground included).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

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
        """Let all go well again."""
        for queue in self.queues().values():
            queue.clear()

    def queues(self) -> dict[str, deque[Fault]]:
        """Name the queues."""
        return {"mints": self.mints, "app": self.app, "requests": self.requests}

    def next_for(self, queue: str) -> Fault | None:
        """Take the fault that the present call meets, if any."""
        waiting = self.queues()[queue]
        return waiting.popleft() if waiting else None
