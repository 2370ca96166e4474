"""The outcome of one request, frozen; log, metrics and audit only read it, so they agree.

https://www.w3.org/TR/trace-context/. Of a caller's `traceparent` nothing is believed but its form.
Whether a trace is *sampled* (its spans are kept) is the caller's word if it sent one; else a share
of new traces is, decided by the trace's own random digits.

`Journal` is the same while it is still happening. Nothing secret ever enters either: no header, no
body, no token, only a token's fingerprint. The target with its query is there only while an audit
trail is kept, and for it alone: no other reader may look at it.
"""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from typing import Protocol

import msgspec

DIGITS = 64  # what a request needs at most: the id of a trace, and those of two spans
DRAWN = 4096  # bytes, which are 128 requests' worth


class RandomDigits:
    """Random lower-case hexadecimal digits, 64 at a time, drawn for many requests at once.

    A draw is a system call, which costs more than all else that an id needs.
    """

    def __init__(self) -> None:
        self._drawn: list[str] = []
        # A fork copies what was drawn; parent and child must not use the same.
        os.register_at_fork(after_in_child=self._drawn.clear)

    def __call__(self) -> str:
        """Return 64 digits that nobody got before."""
        try:
            return self._drawn.pop()
        except IndexError:
            drawn = os.urandom(DRAWN).hex()
            first, *rest = (drawn[at : at + DIGITS] for at in range(0, len(drawn), DIGITS))
            self._drawn.extend(rest)
            return first


# All zeros is invalid there. Versions we do not know are read by the rules of the one we do.
SAFE = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
SAMPLED = 1
SHARE_DIGITS = 8
SHARE_OF = 1 << 4 * SHARE_DIGITS


class Trace(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a request stands in a trace: all ids in lower-case hexadecimal."""

    id: str
    parent: str | None
    """The caller's span, if it named one."""
    span: str
    """Our serving of the request."""
    upstream_span: str
    """Our asking the API, which is the parent of whatever the API does."""
    flags: str
    sampled: bool

    @property
    def traceparent(self) -> bytes:
        """The header that the API gets."""
        return f"00-{self.id}-{self.upstream_span}-{self.flags}".encode("ascii")


# The sampled trace of the request that this task serves. A mint runs in a task of its own and is
# told apart by nothing else from the requests that wait for it; a task inherits the variable from
# the request that started it.
SERVING: ContextVar[Trace | None] = ContextVar("SERVING", default=None)


def continue_trace(received: bytes | None, *, digits: str, share: float = 0.0) -> Trace:
    """Continue the trace of a `traceparent`, or begin one.

    `digits` are 64 fresh random hexadecimal ones. `share` of the traces that begin here is sampled.
    """
    fresh, span, upstream_span = digits[:32], digits[32:48], digits[48:64]
    found = SAFE.fullmatch(received) if received is not None else None
    if found is not None:
        trace, parent, flags = (group.decode("ascii") for group in found.groups())
        sampled = bool(int(flags, 16) & SAMPLED)
        return Trace(
            id=trace,
            parent=parent,
            span=span,
            upstream_span=upstream_span,
            flags=flags,
            sampled=sampled,
        )
    sampled = share > 0 and int(fresh[:SHARE_DIGITS], 16) < share * SHARE_OF
    return Trace(
        id=fresh,
        parent=None,
        span=span,
        upstream_span=upstream_span,
        flags="01" if sampled else "00",
        sampled=sampled,
    )


PATH_LIMIT = 512  # characters of a path that are kept; a longer one is noise, or an attack
ID_LIMIT = 128  # characters of an ID of the API that are kept
CALLER_GONE_STATUS = 499  # nginx's number for it; nobody ever receives this status


class Announcement(msgspec.Struct, gc=False):
    """The intent of one request; the audit trail's thread fills in the number of its record."""

    seq: int | None = None


class Digest(Protocol):
    """A running hash of a body, as `hashlib` makes them."""

    @property
    def name(self) -> str:
        """The algorithm."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Give the hash of all bytes so far."""


class Journal(msgspec.Struct, gc=False):
    """The outcome in the making: each step of the story writes down what it learnt.

    Durations are seconds, sizes are bytes of bodies.
    """

    request_id: str
    trace: Trace
    listener: str
    peer: str
    method: str
    started_at: float
    began: float
    path: str = ""
    operation: str = "unknown"
    changes_state: bool = True
    caller: str | None = None
    installation: str | None = None
    would_refuse: str | None = None
    duplicate_of: str | None = None
    token: str | None = None
    token_generation: int | None = None
    attempts: int = 0
    status: int = 0
    origin: str = "proxy"
    code: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    duration: float = 0.0
    """Known at the end."""
    token_wait: float = 0.0
    first_byte: float | None = None
    sent_at: float | None = None
    """On the same monotonic clock as `began`."""
    sent_after: float | None = None
    """Seconds after the beginning at which the request (last) went to the API; known at the end."""
    upstream_request_id: str | None = None
    """What the API calls the request, if it says so."""
    target: str | None = None
    """As sent, query and all; for the audit trail."""
    rule: str | None = None
    organization: str | None = None
    digest_in: str | None = None
    digest_out: str | None = None
    intent: Announcement | None = None
    """What announced it in the audit trail."""
    reserved_records: int = 0
    """Records that the audit trail has room for on behalf of this request."""
    header_edits: tuple[str, ...] = ()
    """Names of headers that went (`-`), came (`+`) or changed (`~`), if a console was open."""

    @property
    def intent_seq(self) -> int | None:
        """Sequence number of the audit record that announced it, once that is written."""
        return self.intent.seq if self.intent is not None else None

    def close(self, *, at: float) -> Outcome:
        """Return the outcome, which nobody can write; `at` is on the clock of `began`."""
        self.path = printable(self.path[:PATH_LIMIT])
        self.duration = at - self.began
        if self.sent_at is not None:
            self.sent_after = self.sent_at - self.began
        return Outcome(*msgspec.structs.astuple(self))


class Outcome(Journal, frozen=True, gc=False):  # type: ignore[misc]  # of one that is not
    """The record of one request: a journal that nobody can write any more."""

    @property
    def trace_id(self) -> str:
        """The trace it belongs to."""
        return self.trace.id


def printable(path: str) -> str:
    """Make a path safe to encode and to read: what is not plain text shows as an escape.

    A control character would end a line, or be obeyed by the terminal that shows it.
    """
    if path.isascii() and path.isprintable():
        return path
    return "".join(char if " " <= char <= "~" else _escape(char) for char in path)


def readable_id(given: bytes) -> str:
    """Make an ID that the API gave safe to log."""
    return printable(given[:ID_LIMIT].decode("latin-1"))


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # how aiohttp hands over a byte that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
