"""Which header lines of an answer go back to the caller; what goes to the API is in `headers`.

Lines are kept as they were written, each behind its CR LF: most answers lose one or two of them and
are passed on otherwise as they came.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from icr_proxy.http1.cache_control import CACHE_CONTROL, TARGETED
from icr_proxy.http1.headers import HOP_BY_HOP, PROXY_ERROR, REQUEST_ID, connection_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.http1.headers import Header

DROPPED_FROM_ANSWERS = HOP_BY_HOP | {PROXY_ERROR}
CONNECTION = b"connection"
CONTENT_LENGTH = b"content-length"
TRANSFER_ENCODING = b"transfer-encoding"
ABOUT_CONNECTION = frozenset({b"keep-alive", b"close", b""})
"""What `Connection` says most of the time, which names no header that is there."""


# In lines that each come behind their CR LF, all in lower case: it takes half the time so.
NOTED = frozenset({CONTENT_LENGTH, CACHE_CONTROL, REQUEST_ID, *TARGETED})
NOTABLE_IN_ANSWERS = re.compile(
    rb"\r\n(%b)[ \t]*:[ \t]*([^\r]*)" % b"|".join(sorted(DROPPED_FROM_ANSWERS | NOTED))
)
EMPTY_ID_LINE = re.compile(rb"\r\n%b[ \t]*:[ \t]*(?=\r|\Z)" % REQUEST_ID, re.IGNORECASE)
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
    has_length: bool = False
    """Whether one is `Content-Length`."""
    request_id: bytes | None = None
    """What `X-Request-Id` says, if there is one; of several, all."""
    cache_control: tuple[bytes, ...] = ()
    """What each `Cache-Control` says, in lower case."""
    is_targeted: bool = False
    """Whether a field speaks to certain caches: see `cachecontrol.TARGETED`."""


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
    has_length = names_others = is_targeted = False
    request_id: bytes | None = None
    cache_control: tuple[bytes, ...] = ()
    for found in NOTABLE_IN_ANSWERS.finditer(section.lower()):
        name, value = found.groups()
        if name in NOTED:
            if name == CONTENT_LENGTH:
                has_length = True
            elif name == CACHE_CONTROL:
                cache_control += (value,)
            elif name == REQUEST_ID:
                request_id = _joined(request_id, section[found.start(2) : found.end(2)])
            else:
                is_targeted = True
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
    return PassedBack(section, has_length, request_id, cache_control, is_targeted), codings


def _without_named(received: Sequence[Header]) -> PassedBack:
    """Drop what `Connection` names as well."""
    dropped = DROPPED_FROM_ANSWERS | connection_options(received)
    kept = [header for header in received if header[0].lower() not in dropped]
    return passed_back(kept)


def passed_back(headers: Iterable[Header]) -> PassedBack:
    """Write headers as a caller gets them; nothing of them is dropped."""
    headers = tuple(headers)
    has_length = is_targeted = False
    request_id: bytes | None = None
    cache_control: list[bytes] = []
    for name, value in headers:
        lower = name.lower()
        if lower == CONTENT_LENGTH:
            has_length = True
        elif lower == CACHE_CONTROL:
            cache_control.append(value.lower())
        elif lower == REQUEST_ID:
            request_id = _joined(request_id, value)
        elif lower in TARGETED:
            is_targeted = True
    return PassedBack(
        section_of(headers), has_length, request_id, tuple(cache_control), is_targeted
    )


def _joined(before: bytes | None, value: bytes) -> bytes:
    return before + b", " + value if before else value
