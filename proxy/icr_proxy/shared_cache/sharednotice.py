"""What replicas tell each other when a token must not be used any more: sealed, like the tokens.

Somebody who can write to Redis but has no key can therefore make nobody drop a token. He can repeat
a notice; that costs one more mint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from icr_proxy.credentials.signing_key import seal, unseal
from icr_proxy.identifiers import TokenKey, canonical_id

if TYPE_CHECKING:
    from collections.abc import Sequence

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Notice(msgspec.Struct, frozen=True):
    """A drop."""

    sender: str
    installation: str | None
    fingerprint: str | None
    """Of the only token that it is about; `None` for whichever is there."""

    @property
    def key(self) -> TokenKey:
        """Whose token. An older version may spell an ID as a caller did."""
        named = self.installation
        return TokenKey(None if named is None else canonical_id(named))


def write_notice(notice: Notice, *, channel: str, sealing_key: bytes, nonce: bytes) -> bytes:
    """Seal a notice for its channel."""
    text = msgspec.json.encode(notice)
    return seal(text, name=channel.encode(), key=sealing_key, nonce=nonce)


def read_notice(data: object, *, channel: str, keys: Sequence[bytes]) -> Notice | None:
    """Read what was heard on a channel; `None` if none of us has said it."""
    if not isinstance(data, bytes):
        return None
    text = unseal(data, name=channel.encode(), keys=keys)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Notice)
    except UNREADABLE:
        return None
