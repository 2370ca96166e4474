"""What the head of an answer must be for the answer to be passed on.

llhttp takes more than that: other versions, codings, statuses that are none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BODILESS = frozenset({204, 304})  # RFC 9112, 6.3
FIRST_FINAL_STATUS = 200
# Switching Protocols, which nobody asked for, and what is no status: llhttp takes a body after it.
NEVER = frozenset({101, *range(100)})
VERSIONS = ("1.1", "1.0")  # llhttp takes 0.9 and 2.0 as well
PHRASE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")  # RFC 9112, 4; llhttp takes controls
USUAL_PHRASE = b"OK"
LENGTH_OF_LENGTH = len("content-length")
LENGTH_OF_CODING = len("transfer-encoding")


def is_ours(*, version: str, status: int, reason: bytes) -> bool:
    """Whether the first line can be that of an answer to us."""
    return (
        version in VERSIONS
        and status not in NEVER
        and (reason == USUAL_PHRASE or PHRASE.fullmatch(reason) is not None)
    )


def has_length(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the length of the body is told."""
    return any(
        len(name) == LENGTH_OF_LENGTH and name.lower() == b"content-length" for name, _ in headers
    )


def is_plain(codings: Sequence[bytes], *, version: str, status: int) -> bool:
    """Whether a body so coded comes as it is: what we did not ask for could not be passed on.

    So it is with `chunked` named twice, which to some is a body in chunks in a body in chunks, and
    with any coding in HTTP/1.0, where there is none (RFC 9112, 6.1), or of an interim answer.
    """
    return (
        len(codings) == 1
        and codings[0].strip().lower() == b"chunked"
        and version == VERSIONS[0]
        and status >= FIRST_FINAL_STATUS
    )
