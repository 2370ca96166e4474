"""The app's private key: from PEM text in whatever state people have it, to something that signs.

What is found and what is needed is said in the error; the key itself never is.
"""

from __future__ import annotations

import base64
import hashlib
import re
import stat
from typing import TYPE_CHECKING, Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from proxy.errors import KeyUnusableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from proxy.config import AppConfig

MIN_BITS = 2048  # RFC 7518, 3.3: RS256 needs a key of 2048 bits or more
MAX_FILE_BYTES = 64 * 1024
NEEDED = "an RSA private key as PEM (PKCS#1 or PKCS#8, not encrypted) is needed"
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
    """Whoever can sign an App JWT; a key management service could be one."""

    @property
    def fingerprint(self) -> str:
        """Which key signs, in a form that may be shown."""

    def sign(self, claims: Mapping[str, object]) -> str:
        """Give the compact JWT over these claims, signed with RS256."""


class SigningKey:
    """An RSA private key in memory."""

    __slots__ = ("_key", "bits", "fingerprint")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        self.bits = key.key_size
        self.fingerprint = fingerprint(key.public_key())

    def sign(self, claims: Mapping[str, object]) -> str:
        """Give the compact JWT over these claims, signed with RS256."""
        return jwt.encode(dict(claims), self._key, algorithm="RS256")

    def __repr__(self) -> str:
        return f"SigningKey({self.fingerprint})"


def fingerprint(key: rsa.RSAPublicKey) -> str:
    """SHA-256 over the DER SubjectPublicKeyInfo, as `SHA256:` and base64.

    The dashboard is documented to show "a SHA-256 fingerprint" without saying of which bytes (D);
    this is the form of GitHub Apps, whose model the API copies (I).
    """
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()


class KeyWatcher(Protocol):
    """What is told about keys."""

    def loaded(self, fingerprint: str) -> None:
        """A key signs from now on."""

    def rejected(self, error: KeyUnusableError) -> None:
        """A changed file holds no usable key; the old one stays."""


class KeyRing:
    """The key that signs now; a changed file is noticed when the next token is minted.

    `stat` follows symbolic links, so the swap that Kubernetes makes in a mounted secret is seen.
    The time of change is compared, too: `cp -p` and `chmod` leave the time of modification alone.
    """

    def __init__(self, app: AppConfig, *, watcher: KeyWatcher | None = None) -> None:
        """Load the key the configuration names.

        Raises:
            KeyUnusableError: it cannot be read, or is not an RSA private key.
        """
        self._path = app.private_key_file
        self._watcher = watcher
        self._seen: tuple[int, ...] | None = None
        self._rejected = False
        if self._path is None:
            text = app.private_key.reveal() if app.private_key is not None else ""
            self._key = parse_signing_key(text, source="app.private_key")
        else:
            self._seen = self._look(self._path)
            self._key = load_key_file(self._path)
        if watcher is not None:
            watcher.loaded(self._key.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Which key signs, without looking for a newer one."""
        return self._key.fingerprint

    def current(self) -> SigningKey:
        """Give the key to sign with."""
        if self._path is not None:
            seen = self._look(self._path)
            if seen != self._seen:
                self._seen = seen
                self._reload(self._path)
        return self._key

    def _reload(self, path: Path) -> None:
        try:
            key = load_key_file(path)
        except KeyUnusableError as error:
            self._rejected = True
            if self._watcher is not None:
                self._watcher.rejected(error)
            return
        # The same key again is news only to whoever was told that it had gone.
        is_news = self._rejected or key.fingerprint != self._key.fingerprint
        self._rejected = False
        if is_news:
            self._key = key
            if self._watcher is not None:
                self._watcher.loaded(key.fingerprint)

    @staticmethod
    def _look(path: Path) -> tuple[int, ...] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None  # a pipe gives its key once; opening it again would wait for a writer
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def load_key_file(path: Path) -> SigningKey:
    """Load a key from a PEM file.

    Raises:
        KeyUnusableError: it cannot be read, or is not an RSA private key.
    """
    return parse_signing_key(read_key_file(path), source=f"app.private_key_file {path}")


def read_key_file(path: Path) -> str:
    """Read a PEM file of sensible size.

    Raises:
        KeyUnusableError: it is missing, unreadable, too large, or binary.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise KeyUnusableError(
            f"app.private_key_file {path} cannot be read: {exc.strerror}; {NEEDED}"
        ) from None
    if len(raw) > MAX_FILE_BYTES:
        raise KeyUnusableError(f"app.private_key_file {path} is over 64 KiB; {NEEDED}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise KeyUnusableError(
            f"app.private_key_file {path} holds binary data, perhaps DER; {NEEDED}"
        ) from None


def parse_signing_key(text: str, *, source: str) -> SigningKey:
    r"""Read PEM text; newlines may be escaped (`\n`) or lost, as `.env` files and shells do.

    Raises:
        KeyUnusableError: says what was found in `source` and what is needed.
    """
    pem = _repair(text)
    if pem is None:
        raise KeyUnusableError(f"{source} holds {_describe(text)}; {NEEDED}")
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise KeyUnusableError(f"{source} holds {_describe(text)}; {NEEDED}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        kind = type(key).__name__.removesuffix("PrivateKey").lstrip("_")
        raise KeyUnusableError(f"{source} holds a private key of another kind ({kind}); {NEEDED}")
    if key.key_size < MIN_BITS:
        raise KeyUnusableError(
            f"{source} holds an RSA key of {key.key_size} bits; RS256 needs {MIN_BITS} or more"
        )
    return SigningKey(key)


def _repair(text: str) -> str | None:
    """Give back the PEM inside, with its line breaks where they belong."""
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
    if not labels:
        return "no PEM block (-----BEGIN … PRIVATE KEY-----)"
    if "ENCRYPTED" in text:
        return "an encrypted private key"
    label = next((each for each in labels if each.endswith("PRIVATE KEY")), labels[0])
    return MISTAKEN.get(label, "a damaged or cut-off private key")
