"""What happened to one request, frozen; log, metrics and audit only read it, so they agree.

`Journal` is the same while it is still happening. Nothing secret ever enters either: no header, no
body, no token, only a token's fingerprint. The target with its query is there only while an audit
trail is kept, and for it alone: no other reader may look at it.
"""

from __future__ import annotations

import msgspec

from icr_proxy.observability.tracecontext import Trace  # noqa: TC001  # msgspec looks at the types

PATH_LIMIT = 512  # characters of a path that are kept; a longer one is noise, or an attack
ID_LIMIT = 128  # characters of an ID of the API that are kept
CALLER_GONE_STATUS = 499  # nginx's number for it; nobody ever receives this status


class Announcement(msgspec.Struct, gc=False):
    """The intent of one request; the audit trail's thread fills in the number of its record."""

    seq: int | None = None


class Journal(msgspec.Struct, kw_only=True, gc=False):
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
    places: int = 0
    """Records that the audit trail has room for on behalf of this request."""
    header_edits: tuple[str, ...] = ()
    """Names of headers that went (`-`), came (`+`) or changed (`~`), if a console was open."""

    @property
    def intent_seq(self) -> int | None:
        """Sequence number of the audit record that announced it, once that is written."""
        return self.intent.seq if self.intent is not None else None

    def close(self, *, at: float) -> Outcome:
        """Become an outcome; `at` is the same monotonic clock as `began`.

        Whoever still writes from now on fails. A copy of all this would cost as much as to log it.
        """
        self.path = printable(self.path[:PATH_LIMIT])
        self.duration = at - self.began
        if self.sent_at is not None:
            self.sent_after = self.sent_at - self.began
        self.__class__ = Outcome  # which has no field of its own
        return self  # type: ignore[return-value]  # which it now is


class Outcome(Journal, frozen=True, kw_only=True, gc=False):  # type: ignore[misc]  # frozen late
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
