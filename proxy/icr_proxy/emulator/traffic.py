"""What the emulator received, exactly as received.

A record appears when the head of a request has arrived and is filled in as the call proceeds;
it is mutable, so that a test sees a request that is still hanging.
"""

from collections import Counter, deque
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class SeenRequest:
    """One request: raw target, raw headers with case, order and duplicates."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    at: float
    peer_port: int  # tells connections apart
    body_length: int = 0
    body_sha256: str = ""  # of the bytes on the wire, not decompressed
    body_complete: bool = False
    status: int = 0  # 0: not answered (yet)
    installation_id: str | None = None  # whose token it carried, if that was alive
    fault: str | None = None  # the kind of fault that it met

    def values(self, name: str) -> list[str]:
        """Give all values of a header, in the order of their lines."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]


class Traffic:
    """A bounded log of requests and a few counters that are not bounded by it."""

    def __init__(self, size: int) -> None:
        self.requests: deque[SeenRequest] = deque(maxlen=size)
        self.total = 0
        self.statuses: Counter[int] = Counter()
        self.denied: Counter[str] = Counter()
        self.mints: Counter[str] = Counter()
        self.mint_attempts: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget what was seen."""
        self.requests.clear()
        self.total = 0
        for counter in (self.statuses, self.denied, self.mints, self.mint_attempts):
            counter.clear()

    def arrived(self, seen: SeenRequest) -> None:
        """Note the arrival of a request."""
        self.total += 1
        self.requests.append(seen)

    def answered(self, seen: SeenRequest, *, status: int) -> None:
        """Note the answer to a request."""
        seen.status = status
        self.statuses[status] += 1
