"""Every token that was minted and may still live at the API, for whoever revokes them at the end.

The cache forgets tokens that were renewed, refused or dropped; the API does not.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icr_proxy.credentials.access_token import AccessToken


class Issued:
    """Tokens by the order in which they were minted; the oldest leaves when there are too many."""

    def __init__(self, *, max_entries: int) -> None:
        self._max_entries = max_entries
        self._tokens: OrderedDict[str, AccessToken] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, token: AccessToken, *, now: float) -> None:
        """Keep a token; let go those that have expired by themselves."""
        while self._tokens and next(iter(self._tokens.values())).expires_at <= now:
            self._tokens.popitem(last=False)
        if len(self._tokens) >= self._max_entries:
            self._tokens.popitem(last=False)
        self._tokens[token.fingerprint] = token

    def take(self, *, now: float) -> list[AccessToken]:
        """Hand over those that still live, the newest first, and forget all."""
        living = [token for token in self._tokens.values() if token.expires_at > now]
        self._tokens.clear()
        return living[::-1]
