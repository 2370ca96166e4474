"""IDs of installations and organizations: what one is, and its one spelling.

An ID in UUID form is the same in either case (RFC 9562, 4), so it is lower-cased once, where it
enters. After that IDs are compared as text. Any other ID keeps its case, and so do 32 hexadecimal
digits without hyphens: the API may take those for another ID.
"""

from __future__ import annotations

import re

# The ID ends up in the path of a request signed with the App JWT, hence the strict alphabet.
ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
# What broken callers send instead of an ID; no installation is called so.
NOT_AN_ID = frozenset({b"undefined", b"null", b"none", b"nan"})
UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def is_id(value: bytes) -> bool:
    """Tell whether it may be the ID of anything."""
    return ID.fullmatch(value) is not None and value.lower() not in NOT_AN_ID


def canonical_id(text: str) -> str:
    """Give the one spelling of an ID."""
    return text.lower() if UUID.fullmatch(text) is not None else text
