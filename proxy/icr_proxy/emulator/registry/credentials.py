"""Access tokens: made, looked up, killed.

Both kinds are spelled `crs_` and 48 lower-case hex digits, so the prefix does not tell them apart
(D). Permissions are a snapshot taken when the token is made (I). Several tokens of one
installation live side by side (V, I).
"""

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal
from uuid import uuid4

# How many dead tokens are remembered, so that `denied` can say why; bounded for long runs.
_GRAVES: Final = 20_000

Death = Literal["revoked", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A live access token; an app token has no installation and no organization."""

    id: str
    token: str
    created_at: float
    expires_at: float
    permissions: dict[str, str]
    installation_id: str | None = None
    organization_id: str | None = None


class TokenBook:
    """All tokens, by their text."""

    def __init__(self) -> None:
        self.live: dict[str, AccessToken] = {}
        self._graves: OrderedDict[str, Death] = OrderedDict()

    def clear(self) -> None:
        """Forget all tokens."""
        self.live.clear()
        self._graves.clear()

    def issue(
        self,
        *,
        now: float,
        lifetime: float,
        permissions: dict[str, str],
        installation_id: str | None = None,
        organization_id: str | None = None,
    ) -> AccessToken:
        """Make a token and bury those that are past their time."""
        self._bury_expired(now)
        token = AccessToken(
            id=str(uuid4()),
            token=f"crs_{secrets.token_hex(24)}",
            created_at=now,
            expires_at=now + lifetime,
            permissions=dict(permissions),
            installation_id=installation_id,
            organization_id=organization_id,
        )
        self.live[token.token] = token
        return token

    def find(self, text: str, *, now: float) -> AccessToken | None:
        """Look up a token that is neither revoked nor expired."""
        token = self.live.get(text)
        if token is not None and token.expires_at <= now:
            self._bury(text, death="expired")
            return None
        return token

    def cause_of_death(self, text: str) -> str:
        """Say why a token is not found: `revoked`, `expired` or `unknown`."""
        return self._graves.get(text, "unknown")

    def revoke(self, text: str) -> None:
        """Kill one token."""
        self._bury(text, death="revoked")

    def revoke_of(self, installation_id: str | None) -> int:
        """Kill all tokens of one installation, or those of the app; tell how many there were."""
        doomed = [
            key for key, token in self.live.items() if token.installation_id == installation_id
        ]
        for text in doomed:
            self.revoke(text)
        return len(doomed)

    def _bury_expired(self, now: float) -> None:
        # Insertion order is order of expiry, unless lifetime or clock were changed in between;
        # then some linger until looked up, which is harmless.
        while self.live:
            oldest = next(iter(self.live))
            if self.live[oldest].expires_at > now:
                return
            self._bury(oldest, death="expired")

    def _bury(self, text: str, *, death: Death) -> None:
        if self.live.pop(text, None) is None:
            return
        self._graves[text] = death
        if len(self._graves) > _GRAVES:
            self._graves.popitem(last=False)
