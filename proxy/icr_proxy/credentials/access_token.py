"""Access tokens: issued by the API, and cached with the times of renewal and expiry."""

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
    """Whether the API sent a time of expiry that the proxy understood."""
    is_shared: bool = False
    """Whether the token came from another replica."""


MARGIN_SHARE = 0.1  # at most a tenth of a token's lifetime is spent renewing it
JITTER_SHARE = 0.4  # so that installations which started together do not renew together
DEAD_SECONDS = 2.0  # a token so close to its expiry could expire on the way
DEAD_SHARE = 0.05  # … and no more than this share of its lifetime, for very short ones
CLOCK_TOLERANCE = 1.0  # seconds that a clock may go back without having been set back


@dataclass(slots=True, kw_only=True)
class CachedToken:
    """A token in the cache, with the header value that carries it, encoded once."""

    token: AccessToken
    generation: int
    authorization: bytes
    due_at: float
    dead_at: float
    fresh_from: float = field(init=False)
    """Fresh from here until `due_at`; each request compares these, which saves a call."""

    def __post_init__(self) -> None:
        # A clock that was set back makes a token seem to live for longer than it does.
        self.fresh_from = self.token.minted_at - CLOCK_TOLERANCE

    @classmethod
    def from_token(
        cls, token: AccessToken, *, generation: int, margin: float, chance: float
    ) -> CachedToken:
        """Compute when a token is due and dead.

        Renewal begins `margin` seconds before the expiry, but at most a tenth of the lifetime;
        `chance`, from 0 to 1, delays it, so that tokens of one moment are not renewed together.
        """
        lifetime = token.expires_at - token.minted_at
        margin = min(margin, lifetime * MARGIN_SHARE) * (1 - JITTER_SHARE * chance)
        dead_at = token.expires_at - min(DEAD_SECONDS, lifetime * DEAD_SHARE)
        return cls(
            token=token,
            generation=generation,
            authorization=b"Bearer " + token.secret.reveal().encode("ascii"),
            due_at=min(token.expires_at - margin, dead_at),
            dead_at=dead_at,
        )

    def state(self, now: float) -> str:
        """Return `fresh`, `due` (renew in the background) or `dead` (never send)."""
        if now >= self.dead_at:
            return "dead"
        return "fresh" if self.fresh_from <= now < self.due_at else "due"

    def __repr__(self) -> str:
        return f"CachedToken({self.token.fingerprint}, generation={self.generation})"
