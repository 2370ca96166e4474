"""Seals what is kept by somebody else: nobody can read it, change it, or pass it off as another.

AES-GCM with a random nonce. The name under which something is kept is sealed with it, so that what
was moved to another name does not open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D, 8.3: random ones serve for 2**32 seals with one key


def derive(secret: bytes, *, purpose: bytes) -> bytes:
    """Make a key for one purpose out of a secret that has others (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(secret)


def seal(text: bytes, *, name: bytes, key: bytes, nonce: bytes) -> bytes:
    """Seal a text for this name; a nonce is used once."""
    return nonce + AESGCM(key).encrypt(nonce, text, name)


def unseal(sealed: bytes, *, name: bytes, keys: Iterable[bytes]) -> bytes | None:
    """Open what was sealed for this name with one of the keys; `None` if it was not."""
    nonce, text = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    if len(nonce) < NONCE_BYTES:
        return None
    for key in keys:
        try:
            return AESGCM(key).decrypt(nonce, text, name)
        except InvalidTag:
            continue
    return None
