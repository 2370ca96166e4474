"""Keys of callers: how one is made, and what of it is written down.

A key has 256 bits of chance, so that its plain SHA-256 is safe to keep in a file: there is nothing
to guess, hence no need of a slow hash. The prefix lets scanners of leaked secrets know it, and the
checksum lets them tell it from a word that only begins so (the form of GitHub's tokens).
"""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib

PREFIX = "icrp_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_LENGTH = 43  # 62 ** 43 is more than 2 ** 256
CHECKSUM_LENGTH = 6  # 62 ** 6 is more than 2 ** 32
HASH = "sha256:"


def new_key() -> str:
    """Make a key that nobody has seen before."""
    key = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
    return key + checksum(key)


def checksum(text: str) -> str:
    """Give the CRC-32 of a key's other characters, in its own alphabet."""
    rest, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def hash_of(key: str) -> str:
    """Give what stands in the configuration: `sha256:` and 64 hexadecimal digits."""
    return HASH + hashlib.sha256(key.encode()).hexdigest()


def digest_in(hashed: str) -> bytes:
    """Give the 32 bytes that such a text stands for."""
    return bytes.fromhex(hashed.removeprefix(HASH))
