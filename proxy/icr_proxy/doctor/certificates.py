"""What a certificate says, and what OpenSSL means when it does not trust one."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

UNKNOWN_CA = (
    "the certificate comes from an authority that is not trusted here",
    "if you trust it, name a PEM file with its certificate in upstream.ca_file",
)
WRONG_NAME = (
    "the certificate is for another name",
    "check the host in upstream.base_url; something on the way may answer in its place",
)
# X509_V_ERR_… of OpenSSL's x509_vfy.h.
VERDICTS: dict[int, tuple[str, str]] = {
    9: (
        "the certificate is not valid yet",
        "check this machine's clock",
    ),
    10: (
        "the certificate has expired",
        "check this machine's clock; if it is right, whoever runs what answers must renew",
    ),
    18: UNKNOWN_CA,  # self-signed
    19: UNKNOWN_CA,  # self-signed in the chain
    20: UNKNOWN_CA,  # issuer not found
    21: UNKNOWN_CA,  # one certificate only
    62: WRONG_NAME,
    64: WRONG_NAME,  # an address
}


def advice(exc: ssl.SSLError, *, ca_file: Path | None) -> tuple[str, str]:
    """Say what went wrong in a handshake, and what to do about it."""
    if not isinstance(exc, ssl.SSLCertVerificationError):
        said = (exc.reason or "handshake failed").replace("_", " ").lower()
        return (
            f"what answers does not shake hands: {said}",
            "check scheme and port of upstream.base_url: is TLS spoken there?",
        )
    verdict = VERDICTS.get(exc.verify_code)
    if verdict is None:
        return f"the certificate is not trusted: {exc.verify_message}", UNKNOWN_CA[1]
    detail, remedy = verdict
    if verdict is UNKNOWN_CA:
        trusted = f"those in {ca_file}" if ca_file else "the system's authorities"
        detail = f"{detail} ({trusted} are)"
    return detail, remedy


def read_certificate(found: Mapping[str, Any]) -> tuple[str, float]:
    """Give issuer and expiry of a certificate that `ssl` has verified."""
    issuer = {name: value for part in found.get("issuer", ()) for name, value in part}
    return (
        _joined(issuer.get("organizationName"), issuer.get("commonName")),
        float(ssl.cert_time_to_seconds(found["notAfter"])),
    )


def shown_issuer(der: bytes | None) -> str:
    """Give the issuer that a certificate claims; nothing if it cannot be read."""
    try:
        issuer = x509.load_der_x509_certificate(der or b"").issuer
    except ValueError:
        return ""
    return _joined(
        *(_text(issuer, oid) for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME))
    )


def _text(name: x509.Name, oid: x509.ObjectIdentifier) -> str | None:
    found = name.get_attributes_for_oid(oid)
    return str(found[0].value) if found else None


def _joined(*parts: str | None) -> str:
    """Put the parts of a name into one printable line."""
    text = ", ".join(dict.fromkeys(part for part in parts if part))
    return "".join(char for char in text if char.isprintable())[:120] or "nobody in particular"
