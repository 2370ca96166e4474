"""A certificate authority for tests, and what it issues."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

DAY = dt.timedelta(days=1)
SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def locked_key_pem(self) -> bytes:
        lock = BestAvailableEncryption(b"secret")
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)

    def write(self, folder: Path, name: str = "tls") -> tuple[Path, Path]:
        """Put both into files, as a mounted Kubernetes secret has them."""
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        cert.write_bytes(self.cert_pem)
        key.write_bytes(self.key_pem)
        return cert, key


def issue(
    name: str,
    *,
    by: Issued | None = None,
    names: tuple[x509.GeneralName, ...] = (),
    days: tuple[float, float] = (-1, 1),
    is_plain: bool = False,
) -> Issued:
    """Make a certificate that is valid from one day to the other, counted from today.

    A plain one has neither key usage nor key identifiers.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)  # noqa: TID251  # certificates have real dates
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    # Python 3.13 verifies strictly (RFC 5280, 4.2.1.1 to 4.2.1.3).
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signing = by.key if by else key
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    if not is_plain:
        builder = builder.add_extension(own, critical=False).add_extension(issuer, critical=False)
    if by is None and not is_plain:
        builder = builder.add_extension(SIGNS_CERTIFICATES, critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Issued(key=key, certificate=builder.sign(signing, hashes.SHA256()))


@cache
def authority(name: str = "test authority") -> Issued:
    """Give the one authority of that name."""
    return issue(name)


def server_certificate(*, by: Issued | None = None, days: tuple[float, float] = (-1, 1)) -> Issued:
    """Make a certificate for a listener on this machine."""
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    names = (x509.DNSName("localhost"), loopback)
    return issue("localhost", by=by or authority(), names=names, days=days)


def trusting(
    issuer: Issued, *, as_client: Issued | None = None, folder: Path | None = None
) -> ssl.SSLContext:
    """Make a client's context that trusts one authority, perhaps with a certificate of its own."""
    context = ssl.create_default_context(cadata=issuer.cert_pem.decode())
    if as_client is not None and folder is not None:
        context.load_cert_chain(*as_client.write(folder, "client"))
    return context
