"""The emulator's notion of now, which may be shifted away from the machine's.

Tokens, reservations, dates in answers and the `Date` header all follow it, so that a test of
clock skew or of expiry needs no waiting.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate


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
