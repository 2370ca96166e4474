"""An access token, and the moments from which it is renewed and never sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from icr_proxy.redaction import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A token the API issued. Times are seconds since the epoch by our own clock."""

    secret: Secret
    minted_at: float
    expires_at: float
    fingerprint: str
    organization: str | None = None
    permissions: Mapping[str, str] = field(default_factory=dict)
    is_expiry_told: bool = True
    """Whether the API told its end, and the proxy understood it."""
    is_shared: bool = False
    """Whether another replica had it made."""


MARGIN_SHARE = 0.1  # at most a tenth of a token's lifetime is spent renewing it
JITTER_SHARE = 0.4  # so that installations which started together do not renew together
DEAD_SECONDS = 2.0  # a token this close to its end would expire on the way
DEAD_SHARE = 0.05  # … and no more than this share of its lifetime, for very short ones
CLOCK_TREMBLE = 1.0  # seconds by which a clock may go back without having been set back


@dataclass(slots=True, kw_only=True)
class CachedToken:
    """A token in the cache, with the header value that carries it, encoded once."""

    token: AccessToken
    generation: int
    authorization: bytes
    due_at: float
    dead_at: float
    fresh_from: float = field(init=False)
    """Until `due_at` it is fresh; asked so for each request, which spares it a call."""

    def __post_init__(self) -> None:
        # A clock that was set back makes a token seem to live for longer than it does.
        self.fresh_from = self.token.minted_at - CLOCK_TREMBLE

    def state(self, now: float) -> str:
        """One of `fresh`, `due`, `dead`."""
        if now >= self.dead_at:
            return "dead"
        return "fresh" if self.fresh_from <= now < self.due_at else "due"

    def __repr__(self) -> str:
        return f"CachedToken({self.token.fingerprint}, generation={self.generation})"


def with_deadlines(
    token: AccessToken, *, generation: int, margin: float, chance: float
) -> CachedToken:
    """Work out when a token is due and dead.

    It is renewed `margin` seconds before its end, but at most a tenth of its lifetime; `chance`,
    from 0 to 1, makes that later, so that tokens that were made together are not renewed together.
    """
    lifetime = token.expires_at - token.minted_at
    margin = min(margin, lifetime * MARGIN_SHARE) * (1 - JITTER_SHARE * chance)
    dead_at = token.expires_at - min(DEAD_SECONDS, lifetime * DEAD_SHARE)
    return CachedToken(
        token=token,
        generation=generation,
        authorization=b"Bearer " + token.secret.reveal().encode("ascii"),
        due_at=min(token.expires_at - margin, dead_at),
        dead_at=dead_at,
    )
