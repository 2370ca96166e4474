"""The app's keys and the access tokens of the emulated API.

Both kinds are spelled `crs_` and 48 lower-case hex digits, so the prefix does not tell them apart
(D). Permissions are a snapshot taken when the token is made (I). Several tokens of one
installation live side by side (V, I).

The emulator also hands out private keys, which ICR never does: these are throw-away keys.
"""

import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal
from uuid import uuid4

from cachetools import FIFOCache
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

# How many ended tokens are remembered, so that `denied` can say why; bounded for long runs.
_ENDED_MOST: Final = 20_000

EndReason = Literal["revoked", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
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
        self.live: dict[str, IssuedToken] = {}
        self._ended: FIFOCache[str, EndReason] = FIFOCache(_ENDED_MOST)

    def clear(self) -> None:
        """Forget all tokens."""
        self.live.clear()
        self._ended.clear()

    def issue(
        self,
        *,
        now: float,
        lifetime: float,
        permissions: dict[str, str],
        installation_id: str | None = None,
        organization_id: str | None = None,
    ) -> IssuedToken:
        """Issue a token and remove the expired ones."""
        self._end_expired(now)
        token = IssuedToken(
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

    def lookup(self, text: str, *, now: float) -> IssuedToken | None:
        """Return a token that is neither revoked nor expired."""
        token = self.live.get(text)
        if token is not None and token.expires_at <= now:
            self._end(text, reason="expired")
            return None
        return token

    def end_reason(self, text: str) -> str:
        """Return why a token is not found: `revoked`, `expired` or `unknown`."""
        return self._ended.get(text, "unknown")

    def revoke(self, text: str) -> None:
        """Revoke one token."""
        self._end(text, reason="revoked")

    def revoke_of(self, installation_id: str | None) -> int:
        """Revoke all tokens of one installation, or those of the app; return their number."""
        revoked = [
            key for key, token in self.live.items() if token.installation_id == installation_id
        ]
        for text in revoked:
            self.revoke(text)
        return len(revoked)

    def _end_expired(self, now: float) -> None:
        # Insertion order is order of expiry, unless lifetime or clock were changed in between;
        # then some linger until looked up, which is harmless.
        while self.live:
            oldest = next(iter(self.live))
            if self.live[oldest].expires_at > now:
                return
            self._end(oldest, reason="expired")

    def _end(self, text: str, *, reason: EndReason) -> None:
        if self.live.pop(text, None) is None:
            return
        self._ended[text] = reason


_RSA_BITS: Final = 2048
_RSA_EXPONENT: Final = 65537


def new_private_key() -> str:
    """Generate an RSA key as PKCS#8 PEM."""
    key = generate_private_key(public_exponent=_RSA_EXPONENT, key_size=_RSA_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def public_half(pem: str) -> RSAPublicKey:
    """Read the public key out of a private or public PEM; `ValueError` if there is none."""
    data = pem.encode()
    if b"PUBLIC KEY" in data:
        public = load_pem_public_key(data)
        if isinstance(public, RSAPublicKey):
            return public
        raise ValueError("not an RSA key")
    # The full check of a private key takes longer than a test; nothing depends on this one.
    private = load_pem_private_key(data, password=None, unsafe_skip_rsa_key_validation=True)
    if isinstance(private, RSAPrivateKey):
        return private.public_key()
    raise ValueError("not an RSA key")


def fingerprint(key: RSAPublicKey) -> str:
    """SHA-256 of the public key's DER form; how ICR spells its fingerprint is not known (A)."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(der).hexdigest()


class AppKeys:
    """The active public keys, by fingerprint."""

    def __init__(self, first: str) -> None:
        """Begin with one private key, which is handed out to whoever asks for it."""
        self.private_pem = first
        self.active: dict[str, RSAPublicKey] = {}
        self.add(first)

    def add(self, pem: str) -> str:
        """Activate a key and tell its fingerprint."""
        key = public_half(pem)
        name = fingerprint(key)
        self.active[name] = key
        return name

    def delete(self, key_fingerprint: str) -> bool:
        """Deactivate a key; False if it was not active."""
        return self.active.pop(key_fingerprint, None) is not None
