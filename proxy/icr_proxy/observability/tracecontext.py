"""W3C trace context: the caller's trace continued, or a new one.

https://www.w3.org/TR/trace-context/. Of a caller's `traceparent` nothing is believed but its form.
Whether a trace is *sampled* (its spans are kept) is the caller's word if it sent one; else a share
of new traces is, decided by the trace's own random digits.
"""

from __future__ import annotations

import re
from contextvars import ContextVar

import msgspec

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
