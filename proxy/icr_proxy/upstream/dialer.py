"""Makes connections to the API, and notices when the API's name leads back to the proxy.

A tool whose API address is hard-wired is brought here by an entry in /etc/hosts, or by a pod's
`hostAliases`; the proxy reads the same entry, and would ask itself for tokens.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from icr_proxy.errors import (
    UpstreamCertificateError,
    UpstreamExhaustedError,
    UpstreamLoopError,
    UpstreamTimeoutError,
    UpstreamTlsError,
    UpstreamUnreachableError,
)
from icr_proxy.net import addresses as binds
from icr_proxy.net.addresses import split_address
from icr_proxy.net.descriptors import is_exhausted
from icr_proxy.net.peers import plain_address
from icr_proxy.upstream.trust_store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from icr_proxy.upstream.connection import Connection
    from icr_proxy.upstream.trust_store import TrustWatcher

HUNG_UP = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
LOOP = "the API's name leads back to this proxy; set upstream.address to where the API is"


class UpstreamAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the API is, parsed once at start."""

    host: str
    port: int
    trust: TrustStore | None
    """What its certificate is verified against; `None` without TLS."""
    name: str
    """What its certificate must name; another than `host` if that is only where to connect."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What the next handshake uses."""
        return self.trust.context if self.trust is not None else None


def parse_address(
    base_url: str,
    *,
    ca_file: Path | None,
    address: str | None = None,
    watcher: TrustWatcher | None = None,
) -> UpstreamAddress:
    """Take apart a base URL that `config` has checked; certificates are always verified.

    `address` is where to connect in place of what the URL says, with or without a port.

    Raises:
        StartError: `ca_file` cannot be read or holds no certificate.
    """
    url = urlsplit(base_url)
    trust = TrustStore(ca_file, watcher=watcher) if url.scheme == "https" else None
    name, port = url.hostname or "", url.port or (443 if trust else 80)
    host, other_port = split_address(address) if address is not None else (name, None)
    return UpstreamAddress(host=host, port=other_port or port, trust=trust, name=name)


async def dial(
    address: UpstreamAddress,
    *,
    seconds: float,
    protocol: Callable[[], Connection],
    is_own: Callable[[str, int], bool],
) -> Connection:
    """Connect, TLS included, in so many seconds; nothing of a request is sent.

    Raises:
        UpstreamTimeoutError: it took longer.
        UpstreamTlsError: whoever answers cannot prove to be the API.
        UpstreamLoopError: it was ourselves; `is_own` knows our addresses.
        UpstreamUnreachableError: nobody answers.
        UpstreamExhaustedError: this process has no descriptor left, which says nothing of the API.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            transport, connection = await loop.create_connection(
                protocol,
                address.host,
                address.port,
                ssl=address.tls,
                server_hostname=address.name if address.tls else None,
            )
    except TimeoutError:
        raise UpstreamTimeoutError("connecting to the API took too long") from None
    except (ssl.SSLError, ssl.CertificateError) as exc:
        await _refuse_loop(address, is_own)
        kind = UpstreamTlsError
        if isinstance(exc, ssl.SSLCertVerificationError):
            kind = UpstreamCertificateError
        raise kind("the API's certificate or TLS handshake failed") from exc
    except OSError as exc:
        if is_exhausted(exc):
            raise UpstreamExhaustedError("this proxy has no file descriptor left") from exc
        # Refused is the port; whoever hangs up later does so in the middle of the handshake.
        if address.tls is not None and isinstance(exc, HUNG_UP):
            await _refuse_loop(address, is_own)
            raise UpstreamTlsError("the API broke off the TLS handshake") from exc
        raise UpstreamUnreachableError("the API cannot be reached") from exc
    peer = transport.get_extra_info("peername")
    if peer is not None and is_own(peer[0], peer[1]):
        connection.abort("error")
        raise UpstreamLoopError(LOOP)
    return connection


async def _refuse_loop(address: UpstreamAddress, is_own: Callable[[str, int], bool]) -> None:
    """Find out whether it was ourselves that we could not make out.

    Raises:
        UpstreamLoopError: it was.
    """
    loop = asyncio.get_running_loop()
    with suppress(OSError, UnicodeError):
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        if any(is_own(str(each[4][0]), address.port) for each in found):
            raise UpstreamLoopError(LOOP)


WILDCARDS = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}  # noqa: S104 - compared, not bound


class OwnAddresses:
    """The addresses and ports of this proxy's own listeners."""

    def __init__(self) -> None:
        self._hosts_by_port: dict[int, set[str]] = {}

    def add(self, addresses: Iterable[str]) -> None:
        """Take note of addresses as `Listener.addresses` has them."""
        for address in addresses:
            place = binds.host_and_port(address)
            if place is not None:
                self._hosts_by_port.setdefault(place[1], set()).add(place[0])

    def includes(self, host: str, port: int) -> bool:
        """Tell whether a connection to this IP address and port would come back to us."""
        hosts = self._hosts_by_port.get(port)
        if hosts is None:
            return False
        host = plain_address(host.partition("%")[0])
        return host in hosts or any(
            is_here(host, family=WILDCARDS[each]) for each in hosts & WILDCARDS.keys()
        )


def is_here(host: str, *, family: socket.AddressFamily) -> bool:
    """Tell whether an address is one of this machine's: only those can be bound."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
