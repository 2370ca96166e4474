"""Basic credentials (RFC 7617): what a tool sends that can only set the user part of a URL."""

from __future__ import annotations

import binascii
import re

BASIC = re.compile(rb"basic(?:[ \t]+(.*))?", re.IGNORECASE | re.DOTALL)


def is_basic(value: bytes) -> bool:
    """Tell whether a header's value is of this scheme, well-formed or not."""
    return BASIC.fullmatch(value) is not None


def read_basic(value: bytes) -> tuple[bytes, bytes] | None:
    """Give user and password; `None` if it is another scheme, or not to be read."""
    basic = BASIC.fullmatch(value)
    if basic is None:
        return None
    try:
        decoded = binascii.a2b_base64(basic[1] or b"", strict_mode=True)
    except binascii.Error:
        return None
    user, colon, password = decoded.partition(b":")
    return (user, password) if colon else None
