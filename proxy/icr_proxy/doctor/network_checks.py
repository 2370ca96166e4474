"""Checks of the way to the API below HTTP: name, connection, certificate.

`pool` says only that a connection failed; here each part of the way is gone by itself.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from icr_proxy.doctor.findings import DoctorFinding
from icr_proxy.errors import StartError
from icr_proxy.net.addresses import is_loopback
from icr_proxy.redaction import printable
from icr_proxy.upstream.dialer import OwnAddresses, parse_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from icr_proxy.doctor.findings import Case

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
    return printable(text)[:120] or "nobody in particular"


EXPIRES_SOON_DAYS = 14


async def names(case: Case) -> AsyncIterator[DoctorFinding]:
    """Resolve the API's name."""
    loop, (host, port) = asyncio.get_running_loop(), case.place
    try:
        async with asyncio.timeout(case.config.upstream.timeouts.connect):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:  # TimeoutError is an OSError
        yield DoctorFinding(
            "DNS",
            "fail",
            f"the name {host} is not resolved: {reason(exc)}",
            "check upstream.base_url for a typing error, then this machine's DNS",
        )
        return
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    own = OwnAddresses()
    own.add(listener.bind for listener in case.config.listeners)
    if any(own.includes(each, port) for each in addresses):
        yield DoctorFinding(
            "DNS",
            "fail",
            f"{host} port {port} is this proxy's own listener: it would ask itself for tokens",
            "set upstream.address to where the API really is",
        )
    elif addresses == [host]:
        yield DoctorFinding("DNS", "ok", f"{host} is an address, no name")
    else:
        yield DoctorFinding("DNS", "ok", f"{host} is {', '.join(addresses)}")


async def connection(case: Case) -> AsyncIterator[DoctorFinding]:
    """Open a connection and close it."""
    clock = case.session.clocks.clock
    began = clock()
    try:
        peer = await _connect(case, tls=None)
    except OSError as exc:
        yield DoctorFinding(
            "TCP",
            "fail",
            f"{case.place[0]} port {case.place[1]} takes no connection: {reason(exc)}",
            "check host and port of upstream.base_url, and firewalls on the way",
        )
        return
    milliseconds = max(1, round((clock() - began) * 1000))
    where = peer.get_extra_info("peername") or ("the API", case.port)
    yield DoctorFinding(
        "TCP", "ok", f"connected to {where[0]} port {where[1]} in {milliseconds} ms"
    )
    peer.abort()


async def encryption(case: Case) -> AsyncIterator[DoctorFinding]:
    """Shake hands over TLS and look at the certificate."""
    if not case.is_encrypted:
        yield _plain(case)
        return
    upstream = case.config.upstream
    try:
        tls = parse_address(upstream.base_url, ca_file=upstream.ca_file).tls
        peer = await _connect(case, tls=tls)
    except StartError as error:
        yield DoctorFinding("TLS", "fail", error.detail, "name a file of PEM certificates in it")
    except ssl.SSLError as exc:
        detail, remedy = advice(exc, ca_file=upstream.ca_file)
        if isinstance(exc, ssl.SSLCertVerificationError):
            detail += await _issuer_that_failed(case)
        yield DoctorFinding("TLS", "fail", detail, remedy)
    except OSError as exc:
        yield DoctorFinding(
            "TLS",
            "fail",
            f"the handshake broke off: {reason(exc)}",
            "check that upstream.base_url leads to the API and not to a plain or a filtered port",
        )
    else:
        yield _certificate(case, peer.get_extra_info("ssl_object"))
        peer.abort()


def _plain(case: Case) -> DoctorFinding:
    if is_loopback(case.host):
        return DoctorFinding("TLS", "ok", "not used: the base URL is plain http on this machine")
    return DoctorFinding(
        "TLS",
        "warn",
        "not used: the base URL is plain http, so tokens can be read on the way",
        "use an https URL in upstream.base_url, unless the network encrypts by itself",
    )


def _certificate(case: Case, tls: ssl.SSLObject) -> DoctorFinding:
    issuer, expires_at = read_certificate(tls.getpeercert() or {})
    days = (expires_at - case.session.clocks.now()) / 86400
    detail = f"{tls.version()}, issued by {issuer}, {days:.0f} days to go"
    if days >= EXPIRES_SOON_DAYS:
        return DoctorFinding("TLS", "ok", detail)
    return DoctorFinding(
        "TLS", "warn", detail, "have the certificate renewed by whoever runs what answers there"
    )


async def _issuer_that_failed(case: Case) -> str:
    """Name who issued the certificate that was not trusted: often a firewall that looks inside.

    Nothing is verified and nothing is sent on this connection.
    """
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    try:
        peer = await _connect(case, tls=tls)
    except OSError:
        return ""
    issuer = shown_issuer(peer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    peer.abort()
    return f"; it says it was issued by {issuer}" if issuer else ""


async def _connect(case: Case, *, tls: ssl.SSLContext | None) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    named: dict[str, Any] = {"ssl": tls, "server_hostname": case.host} if tls else {}
    async with asyncio.timeout(case.config.upstream.timeouts.connect):
        peer, _ = await loop.create_connection(asyncio.Protocol, *case.place, **named)
    return peer


def reason(exc: BaseException) -> str:
    """Say in a few words what the system said."""
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, OSError) and exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno)  # asyncio writes its own words over those of the system
    return str(getattr(exc, "strerror", None) or str(exc) or type(exc).__name__)
