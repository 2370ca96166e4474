"""Key files and a local certificate authority for people; serving does not import it.

Its certificate says for which names it may issue (RFC 5280, 4.2.1.10). Whoever puts it into a
trust store thereby trusts it for these and for no other site, even if its key is stolen.
"""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from icr_proxy.credentials.signing_key import fingerprint, parse_signing_key, read_key_file
from icr_proxy.errors import KeyUnusableError
from icr_proxy.files import PRIVATE_MODE, PUBLIC_MODE, write_file
from icr_proxy.net.addresses import read_host

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OWN_ORGANIZATION = "icr-proxy"  # marks certificates that were made here
CA_DAYS = 3650
SERVER_DAYS = 397  # browsers take no longer ones from public authorities, and few need longer
BACKDATED = dt.timedelta(hours=1)  # for clocks that are a little behind
NAME_MOST = 64  # characters of a common name (RFC 5280, upper bounds)

NO_NAME = x509.DNSName("invalid")  # RFC 2606, 2
EVERY_ADDRESS = [x509.IPAddress(ip_network(each)) for each in ("0.0.0.0/0", "::/0")]

Key: TypeAlias = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCertificates:
    """The files in the folder, and what was made."""

    ca: Path
    cert: Path
    key: Path
    is_new_ca: bool
    expires_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    key: Key
    certificate: x509.Certificate


def make_certificates(folder: Path, names: Sequence[str], *, now: dt.datetime) -> LocalCertificates:
    """Issue a certificate for these hosts, from the authority in the folder or a new one.

    Raises:
        KeyUnusableError: a file there was not made here, or the authority is for other hosts.
        OSError: a file cannot be written.
        ValueError: one of the names is no host.
    """
    hosts = list(dict.fromkeys(read_host(name) for name in names))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_cert, ca_key = folder / "ca.crt", folder / "ca.key"
    cert, key = folder / "tls.crt", folder / "tls.key"
    existing = _read_pair(ca_cert, ca_key)
    if existing is not None:
        _check_authority(existing, hosts, path=ca_cert)
    server_key = _server_key(cert, key, authority=existing)
    authority = existing or _new_authority(hosts, now=now)
    server = _issue(hosts, authority, server_key, now=now)
    if existing is None:
        _write(ca_key, _pem(authority.key), mode=PRIVATE_MODE)
        _write(ca_cert, authority.certificate.public_bytes(Encoding.PEM), mode=PUBLIC_MODE)
    # The key stays from one certificate to the next, so that no moment has two that do not match.
    _write(key, _pem(server_key), mode=PRIVATE_MODE)
    _write(cert, server.public_bytes(Encoding.PEM), mode=PUBLIC_MODE)
    return LocalCertificates(
        ca=ca_cert,
        cert=cert,
        key=key,
        is_new_ca=existing is None,
        expires_at=server.not_valid_after_utc,
    )


# -- files in the folder --------------------------------------------------------------------------


def _read_pair(cert: Path, key: Path) -> _Pair | None:
    """Read a certificate with its key; None if neither is there."""
    if not _exists(cert) and not _exists(key):
        return None
    try:
        certificate = x509.load_pem_x509_certificate(cert.read_bytes())
        private = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        raise _foreign_error(cert, key) from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise _foreign_error(cert, key)
    if private.public_key() != certificate.public_key() or not is_ours(certificate):
        raise _foreign_error(cert, key)
    return _Pair(key=private, certificate=certificate)


def _check_authority(authority: _Pair, hosts: Sequence[str], *, path: Path) -> None:
    found = authority.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    permitted = set(found.value.permitted_subtrees or ())
    others = [host for host in hosts if _constraint(host) not in permitted]
    if others:
        raise KeyUnusableError(
            f"the authority {path} may not issue for {', '.join(others)}; make another one with"
            " all names in another folder (--out), and have it trusted in place of this one"
        )


def _server_key(cert: Path, key: Path, *, authority: _Pair | None) -> Key:
    """Return the key of the last certificate, or a new one."""
    last = _read_pair(cert, key)
    if last is None:
        return ec.generate_private_key(ec.SECP256R1())
    if authority is None:
        raise _foreign_error(cert, key)
    try:
        last.certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        raise _foreign_error(cert, key) from None
    return last.key


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def is_ours(certificate: x509.Certificate) -> bool:
    """Return whether an authority made here issued a certificate."""
    return any(
        each.value == OWN_ORGANIZATION
        for each in certificate.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    )


def _foreign_error(*paths: Path) -> KeyUnusableError:
    listed = " and ".join(map(str, paths))
    return KeyUnusableError(
        f"{listed} are there, but not both, or not made by this command; nothing was written:"
        " choose another folder with --out"
    )


# -- new certificates -----------------------------------------------------------------------------


def _new_authority(hosts: Sequence[str], *, now: dt.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Each name is unique, because a trust store tells authorities apart by it.
    subject = _name(f"icr-proxy local CA {serial:x}"[:NAME_MOST])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, subject, key, serial=serial, now=now, days=CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(_constraints(hosts), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Pair(key=key, certificate=certificate)


def _issue(
    hosts: Sequence[str], authority: _Pair, key: Key, *, now: dt.datetime
) -> x509.Certificate:
    issuer = authority.certificate
    issuer_key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    serial = x509.random_serial_number()
    # The host is in the alternative names, where clients look (RFC 9525); this is for people.
    subject = _name("icr-proxy listener")
    return (
        _builder(subject, issuer.subject, key, serial=serial, now=now, days=SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, *, serial: int, now: dt.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, OWN_ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _constraint(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_network(host))  # of one address
    except ValueError:
        return x509.DNSName(host)


def _constraints(hosts: Sequence[str]) -> x509.NameConstraints:
    """Permit these hosts only; a kind of name that is not mentioned would be unrestricted."""
    permitted = [_constraint(host) for host in hosts]
    kinds = {type(each) for each in permitted}
    if x509.DNSName not in kinds:
        permitted.append(NO_NAME)
    excluded = None if x509.IPAddress in kinds else EVERY_ADDRESS
    return x509.NameConstraints(permitted, excluded)


def _pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, pem: bytes, *, mode: int) -> None:
    write_file(path, pem, mode=mode, replace=True)


EXPONENT = 65537
NEEDED = "an RSA key as PEM, private (not encrypted) or public, is needed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """The facts of a key that may be shown."""

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
    """A new key pair as PEM: PKCS#8 and SubjectPublicKeyInfo."""

    private: bytes
    public: bytes

    def __repr__(self) -> str:
        return "KeyPair(***)"


def generate_key_pair(bits: int) -> KeyPair:
    """Generate a pair of RSA keys."""
    key = rsa.generate_private_key(public_exponent=EXPONENT, key_size=bits)
    return KeyPair(
        private=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        public=key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def encoding_of(text: str) -> str:
    """Return in which of the two forms a private key is written."""
    return "PKCS#1" if "BEGIN RSA PRIVATE KEY" in text else "PKCS#8"


def read_key_facts(path: Path) -> KeyFacts:
    """Read the facts of the key in a PEM file.

    Raises:
        KeyUnusableError: it cannot be read, or holds no RSA key.
    """
    try:
        text = read_key_file(path)
        return parse_key_facts(text, source=str(path))
    except KeyUnusableError as error:
        # The message names a configuration key, and there is no configuration here.
        raise KeyUnusableError(error.detail.removeprefix("app.private_key_file ")) from None


def parse_key_facts(text: str, *, source: str) -> KeyFacts:
    """Read the facts of a private or public key in PEM text.

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
