"""How records of the audit trail hang together: sequence number, hash of the one before, seal.

A line is `{"seq":N,"prev":"P","kind":"K",…,"hash":"H","mac":"M"}`. H is the SHA-256 of all bytes
before `,"hash"`, so it covers P, which is the H of the record before: to change one record means to
change all that follow. M is the HMAC-SHA-256 of H: to do that takes the key. Every byte of a line
is bound by one of these, or has only one value it may have.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

GENESIS = "0" * 64  # what the first record of all has for `prev`
OPENS, CLOSES = "segment", "end"  # the kinds of a segment's first and last record

_START = re.compile(rb'\{"seq":(0|[1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","kind":"([a-z]{1,16})"')
_HEX = rb"[0-9a-f]{64}"
_TAIL = re.compile(rb',"hash":"(' + _HEX + rb')"(?:,"mac":"(' + _HEX + rb')")?\}')
_PLAIN_TAIL = len(b',"hash":""}') + 64
_SEALED_TAIL = _PLAIN_TAIL + len(b',"mac":""') + 64


class BrokenRecordError(ValueError):
    """A line is not what the chain wrote; `kind` says what is wrong, in a word."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Link:
    """What binds a record: its place, the hash of the one before, its own."""

    seq: int
    prev: str
    kind: str
    hash: str
    sealed: bool


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record: where a chain goes on. Whoever remembers one can prove what is missing."""

    seq: int = 0
    hash: str = GENESIS

    @property
    def number(self) -> int:
        """The first 48 bits of the hash: what a metric, a 64-bit float, can hold exactly."""
        return int(self.hash[:12], 16)


def seal(body: bytes, *, after: Head, key: bytes | None) -> tuple[bytes, Head]:
    """Give the line of a record that follows `after`, without its line break, and the new head.

    `body` is the JSON object of what happened and begins with its `kind`.
    """
    seq = after.seq + 1
    line = b'{"seq":%d,"prev":"%b",%b' % (seq, after.hash.encode("ascii"), body[1:-1])
    digest = hashlib.sha256(line)
    text = digest.hexdigest()
    line += b',"hash":"%b"' % text.encode("ascii")
    if key is not None:
        line += b',"mac":"%b"' % mac(digest.digest(), key=key).encode("ascii")
    return line + b"}", Head(seq, text)


def mac(digest: bytes, *, key: bytes) -> str:
    """Give the seal of a record with this hash."""
    return hmac.digest(key, digest, "sha256").hex()


def unseal(line: bytes, *, key: bytes | None) -> Link:
    """Take a line apart and check all that can be checked of it alone; no key, no seal checked.

    Raises:
        BrokenRecordError: it was changed, or sealed with another key.
    """
    start = _START.match(line)
    sealed = line[-_SEALED_TAIL:].startswith(b',"hash":"')
    cut = len(line) - (_SEALED_TAIL if sealed else _PLAIN_TAIL)
    tail = _TAIL.fullmatch(line, cut) if cut > 0 else None
    if start is None or tail is None:
        raise BrokenRecordError("changed", "is not a record of the audit trail")
    digest = hashlib.sha256(line[:cut])
    text = digest.hexdigest()
    if text.encode("ascii") != tail[1]:
        raise BrokenRecordError("changed", "does not have the hash that it says")
    if key is not None:
        if tail[2] is None:
            raise BrokenRecordError("forged", "has no MAC")
        if not hmac.compare_digest(mac(digest.digest(), key=key).encode("ascii"), tail[2]):
            raise BrokenRecordError("forged", "was sealed with another key")
    return Link(
        seq=int(start[1]),
        prev=start[2].decode("ascii"),
        kind=start[3].decode("ascii"),
        hash=text,
        sealed=sealed,
    )
