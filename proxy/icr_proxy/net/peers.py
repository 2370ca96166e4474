"""Who is at the other end of a caller's connection, as far as the connection itself tells.

Worked out once for each connection. `caller_auth` maps the names of a verified client certificate
to rights, so a name keeps its kind: a common name `admin` is not the DNS name `admin`.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOCAL = "unix:"  # how the address of a peer begins that came over a Unix socket

# Kinds of subjectAltName that name somebody, as `ssl` spells them, and how they are written here.
_KINDS = {"DNS": "dns", "URI": "uri", "email": "email"}


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One caller's end of a connection."""

    address: str
    """An IP address, or `unix:uid=…,pid=…`."""
    names: frozenset[str] = frozenset()
    """Names in its verified certificate: `cn:…`, `dns:…`, `uri:…`, `email:…`; none without one."""

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        if self.address.startswith(LOCAL):
            return True
        try:
            return ip_address(self.address).is_loopback
        except ValueError:
            return False


def certificate_names(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Collect the names in what `SSLObject.getpeercert()` gives, which is verified or nothing."""
    return frozenset(_names(certificate)) if certificate else frozenset()


def _names(certificate: Mapping[str, Any]) -> Iterator[str]:
    for part in certificate.get("subject", ()):
        yield from (f"cn:{value}" for kind, value in part if kind == "commonName")
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in _KINDS:
            yield f"{_KINDS[kind]}:{value.lower() if kind == 'DNS' else value}"


def plain_address(host: str) -> str:
    """Write an address as people know it: `::ffff:10.0.0.1`, of a dual-stack socket, is IPv4."""
    if not host.startswith("::ffff:"):
        return host
    try:
        mapped = IPv6Address(host).ipv4_mapped
    except ValueError:
        return host
    return str(mapped) if mapped is not None else host
