"""IDs of installations and organizations: what one is, and its one spelling.

An ID in UUID form is the same in either case (RFC 9562, 4), so it is lower-cased once, where it
enters. After that IDs are compared as text. Any other ID keeps its case, and so do 32 hexadecimal
digits without hyphens: the API may take those for another ID.
"""

from __future__ import annotations

import re

import msgspec

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
        """Where it is minted; the alphabet of an installation ID was checked by `router`."""
        if self.installation is None:
            return b"/app/accessTokens"
        return b"/app/installations/%b/accessTokens" % self.installation.encode("ascii")


class OnOrganization(msgspec.Struct, frozen=True):
    """Whichever installation is on this organization; the directory knows."""

    organization: str


class AppSignature(msgspec.Struct, frozen=True):
    """No token at all: the App JWT itself, for reading the list of installations."""


Credential = TokenKey | OnOrganization | AppSignature
