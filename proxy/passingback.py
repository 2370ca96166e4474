"""Which header lines of an answer go back to the caller; what goes to the API is in `headers`.

Lines are kept as they were written, each behind its CR LF: most answers lose one or two of them and
are passed on otherwise as they came.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from proxy.headers import HOP_BY_HOP, PROXY_ERROR, connection_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proxy.headers import Header

DROPPED_FROM_ANSWERS = HOP_BY_HOP | {PROXY_ERROR}
CONNECTION = b"connection"
CONTENT_LENGTH = b"content-length"
LENGTH_OF_LENGTH = len(CONTENT_LENGTH)
TRANSFER_ENCODING = b"transfer-encoding"
ABOUT_CONNECTION = frozenset({b"keep-alive", b"close", b""})
"""What `Connection` says most of the time, which names no header that is there."""


# In lines that each come behind their CR LF, all in lower case: it takes half the time so.
NOTABLE_IN_ANSWERS = re.compile(
    rb"\r\n(%b)[ \t]*:[ \t]*([^\r]*)" % b"|".join(sorted(DROPPED_FROM_ANSWERS | {CONTENT_LENGTH}))
)
LENGTH_LINE = re.compile(rb"\r\n%b[ \t]*:[^\r]*" % CONTENT_LENGTH, re.IGNORECASE)


def headers_in(section: bytes) -> list[Header]:
    """Take header lines apart, each of which comes behind its CR LF."""
    headers = []
    for line in section.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        headers.append((name, value.lstrip(b" \t")))
    return headers


def section_of(headers: Iterable[Header]) -> bytes:
    """Write header lines, each behind its CR LF."""
    return b"".join([b"\r\n%b: %b" % header for header in headers])


class PassedBack(NamedTuple):
    """What a caller gets of the header lines of an answer."""

    section: bytes
    """The lines, each behind its CR LF."""
    has_length: bool
    """Whether one is `Content-Length`."""


def edit_response(section: bytes) -> tuple[PassedBack, list[bytes]]:
    """Give what is passed back to the caller: everything but the hop's own fields.

    `section` is the header lines, each behind its CR LF. Those that stay are as they were written.
    `Content-Length` stays as the answer's true length; the framing is chosen by `answers`.
    `X-ICR-Proxy-Error` marks answers of the proxy, so the API cannot set it. What it says of its
    own framing, its transfer codings in lower case, is given as well.
    """
    kept: list[bytes] = []
    at = 0
    codings: list[bytes] = []
    has_length = names_others = False
    for found in NOTABLE_IN_ANSWERS.finditer(section.lower()):
        name, value = found.groups()
        if name == CONTENT_LENGTH:
            has_length = True
            continue
        if name == TRANSFER_ENCODING:
            codings.append(value)
        elif name == CONNECTION and value not in ABOUT_CONNECTION:
            names_others = True
        begin, end = found.span()
        kept.append(section[at:begin])
        at = end
    if names_others:
        return _without_named(headers_in(section)), codings
    if at:
        kept.append(section[at:])
        section = b"".join(kept)
    return PassedBack(section, has_length), codings


def _without_named(received: Sequence[Header]) -> PassedBack:
    """Drop what `Connection` names as well."""
    dropped = DROPPED_FROM_ANSWERS | connection_options(received)
    kept = [header for header in received if header[0].lower() not in dropped]
    return passed_back(kept)


def passed_back(headers: Sequence[Header]) -> PassedBack:
    """Write headers as a caller gets them."""
    has_length = any(
        len(name) == LENGTH_OF_LENGTH and name.lower() == CONTENT_LENGTH for name, _ in headers
    )
    return PassedBack(section_of(headers), has_length)
