"""Whether a shared cache in front of the proxy could store an answer that belongs to one caller.

A shared cache stores no answer to a request with `Authorization` unless the answer allows it
(RFC 9111, 3.5). It sees none here: callers send a tag, and the proxy adds the credential behind it.
"""

from __future__ import annotations

import re
from functools import lru_cache

CACHE_CONTROL = b"cache-control"
# Fields that a CDN or a proxy obeys in place of `Cache-Control`. They are meant for caches between
# the API and its clients, which would see the credential.
TARGETED = (
    b"cdn-cache-control",  # RFC 9213
    b"akamai-cache-control",
    b"cloudflare-cdn-cache-control",
    b"netlify-cdn-cache-control",
    b"vercel-cdn-cache-control",
    b"edge-control",  # Akamai
    b"surrogate-control",  # Fastly, Varnish
    b"x-accel-expires",  # nginx
)
TARGETED_LINE = re.compile(
    rb"\r\n(?:%b)[ \t]*:[^\r]*" % b"|".join(map(re.escape, TARGETED)), re.IGNORECASE
)
PRIVATE_LINE = b"\r\nCache-Control: private"
# A string without an end goes on to the end of the field.
QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?$)', re.DOTALL)
ALLOWING = frozenset({b"public", b"must-revalidate"})  # and s-maxage, which has a number
SHARED_AGE = re.compile(rb"s-maxage[ \t]*=[ \t]*[0-9]+")


@lru_cache(maxsize=64)
def may_be_shared(values: tuple[bytes, ...]) -> bool:
    """Whether `Cache-Control`, in lower case, could let a shared cache store without a permission.

    False if it forbids that, or if the API allows it in so many words: then it is meant.
    """
    found = {each.strip() for each in QUOTED.sub(b'""', b",".join(values)).split(b",")}
    if b"private" in found:  # private="field" is about that field alone
        return False
    # With must-understand, a cache may store in spite of no-store (RFC 9111, 5.2.2.3).
    if b"no-store" in found and b"must-understand" not in found:
        return False
    return not (found & ALLOWING or any(map(SHARED_AGE.fullmatch, found)))


def made_private(section: bytes, values: tuple[bytes, ...], *, is_targeted: bool) -> bytes:
    """Give header lines that let no shared cache store the answer, unless the API allows it.

    A string without an end could swallow a line behind it, and so the line comes before strings.
    """
    if is_targeted:
        section = TARGETED_LINE.sub(b"", section)
    if not values:  # as most answers have none, this costs a request nothing
        return section + PRIVATE_LINE
    if not may_be_shared(values):
        return section
    if any(b'"' in value for value in values):
        return PRIVATE_LINE + section
    return section + PRIVATE_LINE
