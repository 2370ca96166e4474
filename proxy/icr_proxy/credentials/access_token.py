"""What a token is and whose it is: the values that `exchange` makes and `tokens` keeps."""

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
