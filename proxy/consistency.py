"""What must hold between several configuration keys.

Each rule gets their values in order and gives the rest of a sentence that begins with the first
key, or None if all is well.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Protocol

from proxy import addresses

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from proxy.secret import Secret


class Bound(Protocol):
    """Anything that listens somewhere."""

    @property
    def bind(self) -> str:
        """Where."""


def one_key(file: Path | None, text: Secret | None) -> str | None:
    """Demand exactly one source of the private key."""
    if file is None and text is None:
        return "is required, unless app.private_key is given"
    if file is not None and text is not None:
        return "is set, and so is app.private_key; keep one of the two"
    return None


def encrypted(base_url: str, allow_plain: bool) -> str | None:  # noqa: FBT001 - a row of values
    """Keep access tokens off unencrypted networks."""
    if base_url.startswith("https:") or allow_plain:
        return None
    if addresses.is_loopback(addresses.url_host(base_url)):
        return None
    return (
        f'"{base_url}" would carry access tokens unencrypted; write https,'
        " or set upstream.allow_plain if the way is safe"
    )


def exposed_on_purpose(bind: str, exposed: bool) -> str | None:  # noqa: FBT001 - a row of values
    """Demand a word before other machines can use our credentials."""
    if exposed or addresses.is_loopback(addresses.split_bind(bind)[0]):
        return None
    return (
        f'"{bind}" can be reached from other machines, and whoever reaches it acts as the'
        " installation; if that is meant, set exposed: true (...__EXPOSED) beside it"
    )


def drain_order(min_drain: float, max_drain: float) -> str | None:
    """Keep the end of draining after its beginning."""
    if min_drain <= max_drain:
        return None
    return f"{min_drain:g}s is longer than shutdown.max_drain, {max_drain:g}s"


def someone_to_serve(listeners: Sequence[Bound]) -> str | None:
    """Demand a listener."""
    return None if listeners else "is empty; at least one listener is needed"


def binds_apart(listeners: Sequence[Bound], admin: Bound) -> str | None:
    """Find the first two binds of which one would not get its port."""
    binds = [(f"listeners[{at}].bind", each.bind) for at, each in enumerate(listeners)]
    for (key, bind), (other, taken) in combinations([*binds, ("admin.bind", admin.bind)], 2):
        if addresses.collide(bind, taken):
            return f'"{bind}" of {key} and "{taken}" of {other} cannot share a port'
    return None
