"""The way of a request from proxy to proxy: it must not come back, and may be told where to end.

Each process has a pseudonym of its own (RFC 9110, 7.6.3), so that one of us may stand before
another, beside an application and as its gateway, and a loop is known all the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from icr_proxy.errors import BadRequestError, LoopDetectedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Header = tuple[bytes, bytes]

NAME = b"icr-proxy"
OURS = re.compile(rb"[^ \t]+[ \t]+icr-proxy(?:-[0-9a-f]{8})?(?:[ \t]+\(.*)?", re.IGNORECASE)
HOPS_MOST = 5  # of our own kind; two are sensible
# What this proxy forwards, told to whoever asks it and not the API.
ALLOWED = (b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
DIGITS_MOST = 9


class Hops:
    """What one process says of itself, and looks for."""

    def __init__(self, pseudonym: bytes) -> None:
        """Be known as `icr-proxy-` and 8 hexadecimal digits."""
        self._pseudonym = pseudonym
        self._via = (b"Via", b"1.1 " + pseudonym)
        self._via_old = (b"Via", b"1.0 " + pseudonym)

    def via(self, *, is_old: bool) -> Header:
        """Give our entry, for a request that came in HTTP/1.1, or in HTTP/1.0."""
        return self._via_old if is_old else self._via

    def check(self, received: Iterable[Header]) -> None:
        """Refuse a request that was here before.

        Raises:
            LoopDetectedError: it was, or it went through too many of us.
        """
        ours = 0
        for name, value in received:
            if len(name) == 3 and name.lower() == b"via":  # noqa: PLR2004  # len("via")
                if self._pseudonym in value:
                    raise LoopDetectedError("the request has come back to this proxy")
                ours += sum(bool(OURS.fullmatch(each.strip())) for each in value.split(b","))
        if ours > HOPS_MOST:
            raise LoopDetectedError("the request has gone through too many proxies of this kind")


def count_down(method: str, received: Sequence[Header]) -> Sequence[Header] | None:
    """Give the headers to go on with, or `None` if the request ends here.

    `Max-Forwards` concerns OPTIONS and TRACE (RFC 9110, 7.6.2); TRACE goes nowhere.

    Raises:
        BadRequestError: it is not one number.
    """
    if method != "OPTIONS":
        return received
    values = [value for name, value in received if name.lower() == b"max-forwards"]
    if not values:
        return received
    if len(values) > 1 or not values[0].isdigit() or len(values[0]) > DIGITS_MOST:
        raise BadRequestError("Max-Forwards is not one number")
    left = int(values[0]) - 1
    if left < 0:
        return None
    return [
        (name, b"%d" % left) if name.lower() == b"max-forwards" else (name, value)
        for name, value in received
    ]
