"""What a token is and whose it is: the values that `exchange` makes and `tokens` keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from icr_proxy.redaction import Secret


class TokenKey(msgspec.Struct, frozen=True, gc=False):
    """Whose token: an installation's, or the app's own. Nothing looser ever keys a cache.

    App and base URL belong to the key too; a process has exactly one of each, and a cache lives
    no longer than they do.
    """

    installation: str | None

    @property
    def kind(self) -> str:
        """The kind of credential, as it is called in metrics."""
        return "app" if self.installation is None else "installation"

    @property
    def path(self) -> bytes:
        """Where it is minted; the alphabet of an installation ID was checked by `routes`."""
        if self.installation is None:
            return b"/app/accessTokens"
        return b"/app/installations/%b/accessTokens" % self.installation.encode("ascii")


class OnOrganization(msgspec.Struct, frozen=True):
    """Whichever installation is on this organization; the directory knows."""

    organization: str


class AppSignature(msgspec.Struct, frozen=True):
    """No token at all: the App JWT itself, for reading the list of installations."""


Credential = TokenKey | OnOrganization | AppSignature


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
