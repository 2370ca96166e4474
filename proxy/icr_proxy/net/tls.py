"""TLS of a listener: certificate and key, read, checked, and read again when they change.

Only a listener with TLS imports this. Everything about the files is said in a sentence here:
OpenSSL's own words for it do not tell which of the files is meant.

Connections that are there keep what they began with, so that a renewed certificate costs nobody
anything. The files are looked at (`stat`, of a handshake's cost a thousandth) when somebody
connects or asks for metrics, and read only when they look different.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from icr_proxy.errors import StartError
from icr_proxy.files import has_mark, pem_of, read_bytes, signature

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from icr_proxy.files import Signature

MOST = 1 << 20  # bytes; whatever is longer is another file

# TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325, 4.2); that of TLS 1.3
# is not chosen here, because all of it is sound.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsFiles(Protocol):
    """The files of a listener's TLS, and whether clients may come without a certificate."""

    @property
    def cert(self) -> Path | None:
        """The certificate, with its issuers behind it."""

    @property
    def key(self) -> Path | None:
        """Its private key."""

    @property
    def client_ca(self) -> Path | None:
        """The authorities of clients' certificates."""

    @property
    def client_auth(self) -> str:
        """Whether clients need one: `required` or `optional`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """The certificate of a listener, and how it verifies clients."""

    context: ssl.SSLContext
    begins_at: float
    expires_at: float
    """Both in seconds since the epoch; of the listener's own certificate, not of its issuers."""

    def complaint(self, *, now: float) -> str | None:
        """Say why callers will not believe the certificate at that time."""
        if now >= self.expires_at:
            return "has expired"
        return "is not valid yet" if now < self.begins_at else None


def read_identity(tls: TlsFiles, *, key: str) -> TlsIdentity:
    """Read the files of a `tls` section; `key` is where the section stands.

    Raises:
        StartError: one of them cannot be used; the sentence says which, and why.
    """
    if tls.cert is None or tls.key is None:
        raise StartError(f"{key}: cert and key are needed")
    certificate = _read_certificate(tls.cert, key=f"{key}.cert")
    public = _read_public_half(tls.key, key=f"{key}.key")
    if _encoded(certificate.public_key()) != public:
        raise StartError(f"{key}.key: {tls.key} is not the key of the certificate in {tls.cert}")
    context = new_context()
    if tls.client_ca is not None:
        _read_certificate(tls.client_ca, key=f"{key}.client_ca")
        _ask_clients(context, optional=tls.client_auth == "optional")
    try:
        # No password: OpenSSL would ask for one on the terminal.
        context.load_cert_chain(tls.cert, tls.key, password="")
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
    except (OSError, ValueError) as exc:
        why = getattr(exc, "reason", None) or getattr(exc, "strerror", None) or "no reason given"
        raise StartError(f"{key}: cert, key and client_ca cannot be used: {why}") from None
    return TlsIdentity(
        context=context,
        begins_at=certificate.not_valid_before_utc.timestamp(),
        expires_at=certificate.not_valid_after_utc.timestamp(),
    )


def new_context() -> ssl.SSLContext:
    """Make what all listeners have in common."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # A caller could ask for one handshake after the other on one connection.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _ask_clients(context: ssl.SSLContext, *, optional: bool) -> None:
    context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    # A session that is taken up again is not verified again.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def _read_certificate(path: Path, *, key: str) -> x509.Certificate:
    """Read the first certificate of a PEM file."""
    data = _read(path, key=key)
    try:
        return x509.load_pem_x509_certificates(data)[0]
    except ValueError:
        raise StartError(f"{key}: {path} does not hold certificates in PEM") from None


def _read_public_half(path: Path, *, key: str) -> bytes:
    data = _read(path, key=key)
    try:
        private = load_pem_private_key(data, password=None)
    except TypeError:
        raise StartError(
            f"{key}: {path} is encrypted; the key is needed without a password, readable by the"
            " proxy's user alone"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise StartError(f"{key}: {path} does not hold a private key in PEM") from None
    return _encoded(private.public_key())


def _encoded(public: PublicKeyTypes) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path, *, key: str) -> bytes:
    try:
        raw = read_bytes(path, limit=MOST)
    except ValueError as exc:
        raise StartError(f"{key}: {path} {exc}") from None
    # OpenSSL reads the file once more, and knows neither a byte order mark nor base64 of PEM.
    text = raw.decode("latin-1")
    if has_mark(raw) or pem_of(text) != text:
        raise StartError(
            f"{key}: {path} is not plain PEM: it has a byte order mark, or is the base64 of PEM;"
            " write the PEM itself, as UTF-8 text without a mark"
        )
    return raw


class TlsWatcher(Protocol):
    """What is told about a listener's certificate."""

    def certified(self, identity: TlsIdentity, *, renewed: bool) -> None:
        """It is in use from now on."""

    def rejected(self, error: StartError) -> None:
        """The files have become unusable; what was in use stays so."""


class ReloadingSslContext(ssl.SSLContext):
    """An SSL context that reloads its files when they change.

    Both event loops call `wrap_bio` once for each connection and nothing else of a context.
    """

    def __new__(cls, tls: TlsFiles, *, key: str, watcher: TlsWatcher) -> Self:
        """Make a context, which itself knows no certificate and could serve nobody."""
        del tls, key, watcher
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, tls: TlsFiles, *, key: str, watcher: TlsWatcher) -> None:
        """Read the files that the section at `key` names.

        Raises:
            StartError: they cannot be used.
        """
        self._tls = tls
        self._key = key
        self._watcher = watcher
        self._seen = self._signatures()  # before they are read, so that no change is missed
        self._identity = read_identity(tls, key=key)
        watcher.certified(self._identity, renewed=False)

    def current(self) -> TlsIdentity:
        """Give what is shown to whoever connects now."""
        seen = self._signatures()
        if seen != self._seen:
            self._seen = seen
            try:
                self._identity = read_identity(self._tls, key=self._key)
            except StartError as error:
                self._watcher.rejected(error)
            else:
                self._watcher.certified(self._identity, renewed=True)
        return self._identity

    def expires_at(self) -> float:
        """Say when that ends, in seconds since the epoch."""
        return self.current().expires_at

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        """Begin a handshake."""
        return self.current().context.wrap_bio(*args, **named)

    def _signatures(self) -> tuple[Signature | None, ...]:
        paths = (self._tls.cert, self._tls.key, self._tls.client_ca)
        return tuple(signature(path) for path in paths if path is not None)
