"""Undoes the content codings of a small body (RFC 9110, 8.4), within a bound.

Of an answer that is passed on, nothing is decoded. This is for answers that the proxy reads itself.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from icr_proxy.errors import ContentCodingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from icr_proxy.http1.headers import Header

GZIP = 16 + zlib.MAX_WBITS
ZLIB = zlib.MAX_WBITS
RAW_DEFLATE = -zlib.MAX_WBITS
GZIP_MAGIC = b"\x1f\x8b"
CODINGS_MOST = 4  # one is usual; each costs a pass over the body
MEMBERS_MOST = 16  # of one gzip body; one is usual, and each costs a copy of what follows it


def content_codings(headers: Iterable[Header]) -> list[bytes]:
    """Names of the codings in the order in which they were applied, without `identity`."""
    lists = [value for name, value in headers if name.lower() == b"content-encoding"]
    names = [each.strip().lower() for each in b",".join(lists).split(b",")]
    return [name for name in names if name not in (b"", b"identity")]


def decode(body: bytes, codings: list[bytes], *, limit: int) -> bytes | None:
    """Undo `codings`; `None` if the result, or a step on the way, is longer than `limit`.

    Raises:
        ContentCodingError: a coding is unknown, or the body is damaged.
    """
    if len(codings) > CODINGS_MOST:
        raise ContentCodingError("too many content codings")
    for coding in reversed(codings):
        if coding in (b"gzip", b"x-gzip"):
            decoded = _gunzip(body, limit=limit)
        elif coding == b"deflate":
            decoded = _undeflate(body, limit=limit)
        else:
            raise ContentCodingError("a content coding other than gzip and deflate")
        if decoded is None:
            return None
        body = decoded
    return body


def _gunzip(body: bytes, *, limit: int) -> bytes | None:
    """Decode all members (RFC 1952, 2.2). What follows the last one is no member and is ignored."""
    parts = bytearray()
    for _ in range(MEMBERS_MOST):
        part, body = _inflate(body, GZIP, limit=limit - len(parts))
        parts += part
        if len(parts) > limit:
            return None
        if not body.startswith(GZIP_MAGIC):
            return bytes(parts)
    raise ContentCodingError("too many gzip members")


def _undeflate(body: bytes, *, limit: int) -> bytes | None:
    """Decode zlib data, or the bare deflate data that some servers send (RFC 9110, 8.4.1.2)."""
    try:
        decoded, _ = _inflate(body, ZLIB, limit=limit)
    except ContentCodingError:
        decoded, _ = _inflate(body, RAW_DEFLATE, limit=limit)
    return decoded if len(decoded) <= limit else None


def _inflate(body: bytes, window: int, *, limit: int) -> tuple[bytes, bytes]:
    """Decode one stream; give at most `limit + 1` bytes of it, and what follows it.

    Raises:
        ContentCodingError: the stream is damaged or cut off.
    """
    inflater = zlib.decompressobj(window)
    try:
        decoded = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise ContentCodingError("the body is damaged") from None
    if len(decoded) <= limit and not inflater.eof:
        raise ContentCodingError("the body is cut off")
    return decoded, inflater.unused_data
