"""The app's keys: several may be active, for rotation, and they end by deletion (D).

The emulator also hands out private keys, which ICR never does: these are throw-away keys.
"""

from hashlib import sha256
from typing import Final

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
