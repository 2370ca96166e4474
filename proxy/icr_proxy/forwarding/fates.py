"""What the status of an answer proves: did the API act on the request, or not?

Asked for one purpose: may the same request be sent again without its happening twice? A wrong "no"
costs a wait, a wrong "yes" costs credits, so whatever proves nothing is `UNKNOWN`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Fate(Enum):
    """What became of a request."""

    DONE = "done"
    """The API has dealt with it, and said so."""
    REFUSED = "refused"
    """The API has refused it for good: the same request would be refused again."""
    NOT_NOW = "not now"
    """The API has not acted, and may do so if asked again."""
    UNKNOWN = "unknown"
    """It may have acted."""


# Statuses that are not what their class says. RFC 9110, 15, unless noted.
ODD: dict[int, Fate] = {
    401: Fate.NOT_NOW,  # about the credential; the next token may do
    403: Fate.NOT_NOW,  # about a permission, which an admin may grant meanwhile
    # "Did not receive a complete request": but it was sent whole, so somebody between us and the
    # API is speaking, and what that one has passed on is not known.
    408: Fate.UNKNOWN,
    425: Fate.NOT_NOW,  # RFC 8470: not processed, on purpose
    429: Fate.NOT_NOW,  # RFC 6585: not processed, on purpose
    # Gateways say these of a client that left in the middle (nginx 499, AWS 460): we did not.
    460: Fate.UNKNOWN,
    499: Fate.UNKNOWN,
    501: Fate.REFUSED,  # the method is not implemented
    505: Fate.REFUSED,  # the version of HTTP is not
}
UNAVAILABLE = 503
CLASSES: dict[int, Fate] = {
    2: Fate.DONE,
    3: Fate.DONE,  # 303 is how some APIs say so; 307 and 308 have not acted, which is known too
    4: Fate.REFUSED,
    # 500 may come after a commit, 502 and 504 from a gateway that lost sight of the API, 520 to 530
    # from one that never says which (Cloudflare).
    5: Fate.UNKNOWN,
}


def fate_of(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Fate:
    """Read an answer of the API.

    503 is said by an API that turns work away, and then tells when to come back; it is also what
    Envoy says when the connection broke after the request had been passed on, without such a hint.
    """
    if status == UNAVAILABLE:
        hinted = any(name.lower() == b"retry-after" for name, _ in headers)
        return Fate.NOT_NOW if hinted else Fate.UNKNOWN
    return ODD.get(status) or CLASSES.get(status // 100, Fate.UNKNOWN)
