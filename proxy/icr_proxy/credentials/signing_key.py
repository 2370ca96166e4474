"""Private key of the app: read from PEM, checked, and used to sign and to seal.

The check of OpenSSL also tests whether the factors are prime. That takes 30 ms for 2048 bits and
200 ms for 4096, at each start and for each new key, and blocks all requests. It is left out here: a
damaged file does not hold two other factors of the same modulus, with all that is computed from
them. A key whose numbers do not agree must not sign: one wrong signature is enough to find its
factors (Boneh, DeMillo, Lipton 1997), and OpenSSL promises nothing for it.

Seals are AES-GCM with a random nonce. The name of an entry is authenticated with it, so that an
entry that was moved to another name does not open.

Errors say what was found and what is needed; they never show the key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Protocol

import jwt
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from icr_proxy.errors import KeyUnusableError
from icr_proxy.files import PIPE_SECONDS, pem_of, read_text
from icr_proxy.redaction import in_quotes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers


def is_consistent(numbers: RSAPrivateNumbers) -> bool:
    """Whether the numbers of an RSA key agree with each other."""
    p, q, d = numbers.p, numbers.q, numbers.d
    e, n = numbers.public_numbers.e, numbers.public_numbers.n
    if min(p, q, e) <= 1 or p & q & e & 1 == 0:
        return False
    return (
        p * q == n
        and d * e % (p - 1) == d * e % (q - 1) == 1
        and numbers.dmp1 == d % (p - 1)
        and numbers.dmq1 == d % (q - 1)
        and numbers.iqmp < p
        and numbers.iqmp * q % p == 1
    )


KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D, 8.3: random ones serve for 2**32 seals with one key


def derive(secret: bytes, *, purpose: bytes) -> bytes:
    """Derive a key for one purpose from a secret with several uses (HKDF, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(secret)


def seal(text: bytes, *, name: bytes, key: bytes, nonce: bytes) -> bytes:
    """Seal a text for this name; a nonce must be used once only."""
    return nonce + AESGCM(key).encrypt(nonce, text, name)


def unseal(sealed: bytes, *, name: bytes, keys: Iterable[bytes]) -> bytes | None:
    """Open a text sealed for this name with one of the keys; `None` if it was not."""
    nonce, text = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    if len(nonce) < NONCE_BYTES:
        return None
    for key in keys:
        try:
            return AESGCM(key).decrypt(nonce, text, name)
        except InvalidTag:
            continue
    return None


MIN_BITS = 2048  # RFC 7518, 3.3: RS256 needs a key of 2048 bits or more
SOURCE = "app.private_key_file"
MAX_FILE_BYTES = 64 * 1024
NEEDED = "an RSA private key as PEM (PKCS#1 or PKCS#8, not encrypted) is needed"
BINARY = "holds binary data, perhaps DER"
LABEL = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")
# Bundles hold certificates or parameters, too, and before the key.
PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL)
# What people paste by mistake, by the label of its PEM.
MISTAKEN = {
    "PUBLIC KEY": "a public key",
    "RSA PUBLIC KEY": "a public key",
    "CERTIFICATE": "a certificate",
    "EC PRIVATE KEY": "an EC private key",
    "DSA PRIVATE KEY": "a DSA private key",
    "ENCRYPTED PRIVATE KEY": "an encrypted private key",
    "OPENSSH PRIVATE KEY": "an OpenSSH private key",
    "CERTIFICATE REQUEST": "a certificate request",
}


class Signer(Protocol):
    """Signer of App JWTs; a key management service could be one."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the key, which may be shown."""

    def sign(self, claims: Mapping[str, object]) -> str:
        """Return the compact JWT over these claims, signed with RS256."""


class SigningKey:
    """An RSA private key in memory."""

    __slots__ = ("_key", "bits", "fingerprint")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        self.bits = key.key_size
        self.fingerprint = fingerprint(key.public_key())

    def sign(self, claims: Mapping[str, object]) -> str:
        """Return the compact JWT over these claims, signed with RS256."""
        return jwt.encode(dict(claims), self._key, algorithm="RS256")

    def derive(self, *, purpose: bytes) -> bytes:
        """Derive a symmetric key from the private key (HKDF).

        It depends on the two primes, not on their encoding, so PKCS#1 and PKCS#8 agree.
        """
        numbers = self._key.private_numbers()
        length = (self.bits + 7) // 8
        low, high = sorted((numbers.p, numbers.q))
        return derive(low.to_bytes(length) + high.to_bytes(length), purpose=purpose)

    def __repr__(self) -> str:
        return f"SigningKey({self.fingerprint})"


def fingerprint(key: rsa.RSAPublicKey) -> str:
    """Return the SHA-256 of the DER SubjectPublicKeyInfo, as `SHA256:` and base64.

    The dashboard is documented to show "a SHA-256 fingerprint" without saying of which bytes (D);
    this is the form of GitHub Apps, whose model the API copies (I).
    """
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()


def load_key_file(path: Path, *, source: str = SOURCE, may_wait: bool = False) -> SigningKey:
    """Load a key from a PEM file; with `may_wait` also from a pipe, once a writer is there.

    Raises:
        KeyUnusableError: it cannot be read, or is not an RSA private key.
    """
    text = read_key_file(path, source=source, may_wait=may_wait)
    return parse_signing_key(text, source=f"{source} {path}")


def read_key_file(path: Path, *, source: str = SOURCE, may_wait: bool = False) -> str:
    """Read a PEM file of sensible size, or one that holds the base64 of PEM.

    Raises:
        KeyUnusableError: it is missing, unreadable, too large, or binary.
    """
    patience = PIPE_SECONDS if may_wait else 0.0
    try:
        text = read_text(path, limit=MAX_FILE_BYTES, patience=patience, binary=BINARY)
    except ValueError as exc:
        raise KeyUnusableError(f"{source} {path} {exc}; {NEEDED}") from None
    return pem_of(text)


def parse_signing_key(text: str, *, source: str) -> SigningKey:
    r"""Read PEM text; newlines may be escaped (`\n`) or lost, as `.env` files and shells do.

    Base64 of PEM is read too.

    Raises:
        KeyUnusableError: says what was found in `source` and what is needed.
    """
    text = pem_of(text)
    pem = _repair(text)
    if pem is None:
        raise KeyUnusableError(f"{source} holds {_describe(text)}; {NEEDED}")
    try:
        # Called unsafe because it leaves out the check; `is_consistent` makes one.
        key = load_pem_private_key(pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise KeyUnusableError(f"{source} holds {_describe(text)}; {NEEDED}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        kind = type(key).__name__.removesuffix("PrivateKey").lstrip("_")
        raise KeyUnusableError(f"{source} holds a private key of another kind ({kind}); {NEEDED}")
    if key.key_size < MIN_BITS:
        raise KeyUnusableError(
            f"{source} holds an RSA key of {key.key_size} bits; RS256 needs {MIN_BITS} or more"
        )
    if not is_consistent(key.private_numbers()):
        raise KeyUnusableError(f"{source} holds {_describe(text)}; {NEEDED}")
    return SigningKey(key)


def _repair(text: str) -> str | None:
    """Return the PEM in a text, with correct line breaks."""
    # Escaped once by a shell, perhaps again by JSON; PEM itself has no backslash.
    found = PEM.search(text.replace("\\r", "").replace("\\n", "\n").replace("\\", ""))
    if found is None:
        return None
    label, body = found.groups()
    if "Proc-Type" not in body:  # RFC 1421 headers: an encrypted key, left to the parser to refuse
        joined = "".join(body.split())
        body = "\n" + "\n".join(joined[i : i + 64] for i in range(0, len(joined), 64)) + "\n"
    return f"-----BEGIN {label}-----{body}-----END {label}-----\n"


def _describe(text: str) -> str:
    if not text.strip():
        return "nothing"
    labels = LABEL.findall(text)
    if not labels and in_quotes(text.strip()):
        return "a text in quotes, which must be removed"
    if not labels:
        return "no PEM block (-----BEGIN … PRIVATE KEY-----)"
    if "ENCRYPTED" in text:
        return "an encrypted private key"
    label = next((each for each in labels if each.endswith("PRIVATE KEY")), labels[0])
    return MISTAKEN.get(label, "a damaged or cut-off private key")
