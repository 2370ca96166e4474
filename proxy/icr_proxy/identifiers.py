"""IDs of installations and organizations: which text is an ID, and its canonical spelling.

Case does not matter in a UUID (RFC 9562, 4), so an ID in this form is lower-cased once, where it
enters. After that IDs are compared as text. Any other ID keeps its case, and so do 32 hexadecimal
digits without hyphens: the API may take those for another ID.
"""

from __future__ import annotations

import re

import msgspec

# The ID ends up in the path of a request signed with the App JWT, hence the strict alphabet.
ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
# Broken clients send these in place of an ID; no installation has such a name.
NOT_AN_ID = frozenset({b"undefined", b"null", b"none", b"nan"})
UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def is_id(value: bytes) -> bool:
    """Tell whether a value can be an ID."""
    return ID.fullmatch(value) is not None and value.lower() not in NOT_AN_ID


def canonical_id(text: str) -> str:
    """Return the canonical spelling of an ID."""
    return text.lower() if UUID.fullmatch(text) is not None else text


class TokenKey(msgspec.Struct, frozen=True, gc=False):
    """Key of a token: an installation, or the app itself. Nothing looser ever keys a cache.

    App and base URL belong to the key, too, but a process has exactly one of each, and a cache
    lives no longer than they do.
    """

    installation: str | None

    @property
    def kind(self) -> str:
        """The kind of credential, as metrics call it."""
        return "app" if self.installation is None else "installation"

    @property
    def path(self) -> bytes:
        """The path that mints it; `router` has checked the alphabet of an installation ID."""
        if self.installation is None:
            return b"/app/accessTokens"
        return b"/app/installations/%b/accessTokens" % self.installation.encode("ascii")


class OnOrganization(msgspec.Struct, frozen=True):
    """The installation of an organization, which the directory looks up."""

    organization: str


class AppSignature(msgspec.Struct, frozen=True):
    """The App JWT in place of a token, for reading the list of installations."""


Credential = TokenKey | OnOrganization | AppSignature
