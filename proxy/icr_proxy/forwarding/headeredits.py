"""Which headers a request lost, gained, or changed on its way: their names, never a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.masking import CREDENTIAL, HIDDEN
from icr_proxy.observability.outcome import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

Header = tuple[bytes, bytes]

# Each connection frames a body in its own way; the body itself is the same.
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
NAME_MOST = 64  # characters that are kept of a name
EDITS_MOST = 64


def header_edits(received: Iterable[Header], sent: Iterable[Header]) -> tuple[str, ...]:
    """Name what went (`-`), came (`+`) and changed (`~`), in the order of the requests."""
    before, after = _by_name(received), _by_name(sent)
    gone = [
        f"{'~' if name in after else '-'}{_shown(name)}"
        for name, values in before.items()
        if after.get(name) != values
    ]
    come = [f"+{_shown(name)}" for name in after if name not in before]
    return tuple((gone + come)[:EDITS_MOST])


def _by_name(headers: Iterable[Header]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)
    return {name: values for name, values in found.items() if name not in FRAMING}


def _shown(name: bytes) -> str:
    text = printable(name[:NAME_MOST].decode("latin-1"))
    return HIDDEN if CREDENTIAL.search(text) else text
