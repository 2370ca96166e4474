"""The hash chain of the audit trail: sequence number, hash of the record before, MAC.

A line is `{"seq":N,"prev":"P","kind":"K",…,"hash":"H","mac":"M"}`. H is the SHA-256 of all bytes
before `,"hash"`, so it covers P, which is the H of the record before: whoever changes one record
has to change all that follow. M is the HMAC-SHA-256 of H, which takes the key. Every byte of a line
is bound by one of these, or has only one possible value.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from binascii import hexlify
from typing import TYPE_CHECKING, Literal

import msgspec

from icr_proxy.errors import StartError
from icr_proxy.redaction import read_secret

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from icr_proxy.redaction import Secret

GENESIS = "0" * 64  # `prev` of the first record of a trail
FIRST_KIND, LAST_KIND = "segment", "end"  # the kinds of a segment's first and last record

_START = re.compile(rb'\{"seq":(0|[1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","kind":"([a-z]{1,16})"')
_HEX = rb"[0-9a-f]{64}"
_TAIL = re.compile(rb',"hash":"(' + _HEX + rb')"(?:,"mac":"(' + _HEX + rb')")?\}')
_PLAIN = len(b',"hash":""}') + 64
_SEALED = _PLAIN + len(b',"mac":""') + 64


class BrokenRecordError(ValueError):
    """A line is not what the chain wrote; `kind` is `changed` or `forged`."""

    def __init__(self, kind: Literal["changed", "forged"], detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class ChainHead(msgspec.Struct, frozen=True):
    """The newest record of a chain. Whoever remembers it can prove that records are missing."""

    seq: int = 0
    hash: str = GENESIS

    @property
    def number(self) -> int:
        """The first 48 bits of the hash, which a metric, a 64-bit float, holds exactly."""
        return int(self.hash[:12], 16)


class ChainLink(msgspec.Struct, frozen=True, gc=False):
    """What binds a record into the chain."""

    seq: int
    prev: str
    kind: str
    hash: str
    sealed: bool


class MacKey:
    """MACs with one key.

    A copy of the keyed object saves hashing the key for each record; a gigabyte has more than a
    million records.
    """

    __slots__ = ("_keyed",)

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod="sha256")

    def mac(self, digest: bytes) -> bytes:
        """Return the MAC of a record with this hash, in hex."""
        keyed = self._keyed.copy()
        keyed.update(digest)
        return hexlify(keyed.digest())


def seal_all(
    bodies: Iterable[bytes], *, after: ChainHead | ChainLink, mac_key: MacKey | None
) -> tuple[list[bytes], ChainHead]:
    """Return the lines of records that follow `after`, without line breaks, and the new head.

    A body is the JSON object of what happened and begins with its `kind`.
    """
    seq, prev, lines = after.seq, after.hash.encode("ascii"), []
    for body in bodies:
        seq += 1
        line = b'{"seq":%d,"prev":"%b",%b' % (seq, prev, body[1:-1])
        digest = hashlib.sha256(line).digest()
        prev = hexlify(digest)
        lines.append(line + _tail(digest, text=prev, mac_key=mac_key))
    return lines, ChainHead(seq, prev.decode("ascii"))


def _tail(digest: bytes, *, text: bytes, mac_key: MacKey | None) -> bytes:
    if mac_key is None:
        return b',"hash":"%b"}' % text
    return b',"hash":"%b","mac":"%b"}' % (text, mac_key.mac(digest))


def read_next(
    line: bytes, *, after: ChainHead | ChainLink, mac_key: MacKey | None
) -> ChainLink | None:
    """Return the link of a line if it is the next record, byte by byte; else use `read_link`."""
    start = b'{"seq":%d,"prev":"%b","kind":"' % (after.seq + 1, after.hash.encode("ascii"))
    cut = len(line) - (_PLAIN if mac_key is None else _SEALED)
    if cut <= 0 or not line.startswith(start):
        return None
    digest = hashlib.sha256(line[:cut]).digest()
    if line[cut:] != _tail(digest, text=hexlify(digest), mac_key=mac_key):
        return None
    kind = line[len(start) : line.index(b'"', len(start))]
    if not kind.isalpha():  # `read_link` refuses it, too
        return None
    return ChainLink(
        after.seq + 1, after.hash, kind.decode("ascii"), digest.hex(), mac_key is not None
    )


def read_link(line: bytes, *, mac_key: MacKey | None) -> ChainLink:
    """Parse a line and check it by itself; without a key, its MAC is not checked.

    Raises:
        BrokenRecordError: it was changed, or sealed with another key.
    """
    start = _START.match(line)
    sealed = line[-_SEALED:].startswith(b',"hash":"')
    cut = len(line) - (_SEALED if sealed else _PLAIN)
    tail = _TAIL.fullmatch(line, cut) if cut > 0 else None
    if start is None or tail is None:
        raise BrokenRecordError("changed", "is not a record of the audit trail")
    digest = hashlib.sha256(line[:cut])
    text = digest.hexdigest()
    if text.encode("ascii") != tail[1]:
        raise BrokenRecordError("changed", "does not have the hash that it says")
    if mac_key is not None:
        if tail[2] is None:
            raise BrokenRecordError("forged", "has no MAC")
        if not hmac.compare_digest(mac_key.mac(digest.digest()), tail[2]):
            raise BrokenRecordError("forged", "was sealed with another key")
    return ChainLink(
        seq=int(start[1]),
        prev=start[2].decode("ascii"),
        kind=start[3].decode("ascii"),
        hash=text,
        sealed=sealed,
    )


LEAST_KEY = 32  # characters; `openssl rand -hex 32` gives 64
REMEDY = "make one with: openssl rand -hex 32"
# What base64 of 64 bytes and more looks like after `openssl rand -base64`.
_BASE64_LINES = re.compile(r"[A-Za-z0-9+/=_-]+(?:\r?\n[A-Za-z0-9+/=_-]+)*")


def read_audit_key(path: Path, *, key: str) -> Secret:
    """Read the file that `key`, of the configuration or a command, names.

    A file that is no key is refused before anything is done with it. With another file's text as
    key, a trail would be sealed with what others know, or each record of a trail would seem to be
    forged.

    Raises:
        StartError: it cannot be read, or holds no key of an audit trail.
    """
    secret = read_secret(path, key=key)
    problem = _key_problem(secret.reveal())
    if problem is not None:
        raise StartError(f"{key}: {path} {problem}; {REMEDY}")
    return secret


def _key_problem(text: str) -> str | None:
    if "-----BEGIN" in text or text.startswith("LS0tLS1"):
        return "holds a PEM key or certificate and not the key of an audit trail"
    if text.lstrip().startswith(("{", "[")):
        return "holds JSON and not the key of an audit trail"
    if len(text) < LEAST_KEY:
        return f"holds less than {LEAST_KEY} characters"
    if not text.isprintable() and not _BASE64_LINES.fullmatch(text):
        return "holds other text than the key of an audit trail"
    return None
