"""Key files for people: what is in one, and making a new pair. Running does not import it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from icr_proxy.credentials.signing_key import fingerprint, parse_signing_key, read_key_file
from icr_proxy.errors import KeyUnusableError

if TYPE_CHECKING:
    from pathlib import Path

EXPONENT = 65537
NEEDED = "an RSA key as PEM, private (not encrypted) or public, is needed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """What may be shown of a key."""

    kind: str
    bits: int
    encoding: str
    fingerprint: str

    @property
    def hexadecimal(self) -> str:
        """The same SHA-256 as pairs of hexadecimal digits."""
        digest = base64.b64decode(self.fingerprint.removeprefix("SHA256:"))
        return digest.hex(":")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A new pair as PEM: PKCS#8 and SubjectPublicKeyInfo."""

    private: bytes
    public: bytes

    def __repr__(self) -> str:
        return "KeyPair(***)"


def new_pair(bits: int) -> KeyPair:
    """Make a pair of RSA keys."""
    key = rsa.generate_private_key(public_exponent=EXPONENT, key_size=bits)
    return KeyPair(
        private=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        public=key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def encoding_of(text: str) -> str:
    """Say in which of the two forms a private key is written."""
    return "PKCS#1" if "BEGIN RSA PRIVATE KEY" in text else "PKCS#8"


def read_facts(path: Path) -> KeyFacts:
    """Say what is in a PEM file.

    Raises:
        KeyUnusableError: it cannot be read, or holds no RSA key.
    """
    try:
        text = read_key_file(path)
        return parse_facts(text, source=str(path))
    except KeyUnusableError as error:
        # `keys` speaks of the configuration, of which there is none here.
        raise KeyUnusableError(error.detail.removeprefix("app.private_key_file ")) from None


def parse_facts(text: str, *, source: str) -> KeyFacts:
    """Say what PEM text holds, a private key or a public one.

    Raises:
        KeyUnusableError: it holds no RSA key.
    """
    if "PRIVATE KEY" in text or "PUBLIC KEY" not in text:
        key = parse_signing_key(text, source=source)
        return KeyFacts(
            kind="private",
            bits=key.bits,
            encoding=encoding_of(text),
            fingerprint=key.fingerprint,
        )
    try:
        public = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusableError(f"{source} holds a damaged public key; {NEEDED}") from None
    if not isinstance(public, rsa.RSAPublicKey):
        raise KeyUnusableError(f"{source} holds a public key that is not RSA; {NEEDED}")
    return KeyFacts(
        kind="public",
        bits=public.key_size,
        encoding="PKCS#1" if "RSA PUBLIC KEY" in text else "SubjectPublicKeyInfo",
        fingerprint=fingerprint(public),
    )
