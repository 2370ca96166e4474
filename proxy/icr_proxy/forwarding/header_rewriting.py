"""Links in responses rewritten to the client's address, and the names of changed headers.

Only `Location`, `Content-Location` and `Link`, and of these only the part that names the API's
origin: everything else stays as it is, byte for byte, and what cannot be read stays whole. Bodies
are never looked at.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from icr_proxy.net.addresses import DEFAULT_PORTS
from icr_proxy.observability.outcome import printable
from icr_proxy.redaction import CREDENTIAL, HIDDEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from icr_proxy.http1.headers import Header

PORTS = {scheme.encode(): port for scheme, port in DEFAULT_PORTS.items()}
# RFC 3986, 4.2: with its scheme, or with that of whatever it is read in.
WITH_HOST = re.compile(rb"(?:(https?):)?//([^/?#]*)", re.IGNORECASE)
# Without user information: who is named there is not us.
AUTHORITY = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?")
ABSOLUTE_FORM = re.compile(r"(https?)://([^/?#]*)", re.IGNORECASE)

# RFC 8288, 3, as far as it matters: targets, quoted text, and what stands between.
TARGET = re.compile(rb"<([^<>]*)>")
QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
BETWEEN = re.compile(rb'[^<"]+')
ANCHOR_FOLLOWS = re.compile(rb";[ \t]*anchor[ \t]*=[ \t]*\Z", re.IGNORECASE)


class LinkAddress(msgspec.Struct, frozen=True):
    """What a caller put before the path: `http://127.0.0.1:8080`, and the prefix with its tag."""

    scheme: bytes
    authority: bytes
    prefix: bytes = b""


def address_of(
    target: str, host: bytes | None, *, is_tls: bool, installation: str | None
) -> LinkAddress | None:
    """Tell which address was used, from the request line and `Host`; nothing if they do not say.

    `installation` is the one named by a path prefix.
    """
    prefix = b"" if installation is None else b"/~" + spelled(installation, target).encode("ascii")
    absolute = ABSOLUTE_FORM.match(target)
    if absolute is not None:  # RFC 9112, 3.2.2: then `Host` does not count
        scheme, authority = absolute[1].lower().encode(), absolute[2].encode("utf-8", "replace")
    else:
        scheme, authority = b"https" if is_tls else b"http", host or b""
    if AUTHORITY.fullmatch(authority) is None:
        return None
    return LinkAddress(scheme, authority, prefix)


def spelled(installation: str, target: str) -> str:
    """Give an ID as the caller wrote it: its tool may compare links with the URL it knows."""
    found = re.search(re.escape(installation), target, re.IGNORECASE | re.ASCII)
    return installation if found is None else found[0]


class LinkRewriter:
    """Knows the API's origin."""

    def __init__(self, base_url: str) -> None:
        """Take it from `upstream.base_url`, which `config` has checked."""
        url = urlsplit(base_url)
        self._scheme = url.scheme.encode()
        self._host = (url.hostname or "").encode()
        self._port = url.port or PORTS[self._scheme]

    def towards(
        self, target: str, host: bytes | None, *, is_tls: bool, installation: str | None
    ) -> Callable[[Sequence[Header]], list[Header]] | None:
        """Give what rewrites for one caller, if it is known where he is (see `address_of`)."""
        address = address_of(target, host, is_tls=is_tls, installation=installation)
        if address is None:
            return None
        return lambda headers: self.rewrite(headers, address)

    def rewrite(self, headers: Sequence[Header], address: LinkAddress) -> list[Header]:
        """Give the headers of an answer as a caller at this address can use them."""
        rewritten = []
        for name, value in headers:
            lower = name.lower()
            if lower in (b"location", b"content-location"):
                rewritten.append((name, self.reference(value, address)))
            elif lower == b"link":
                rewritten.append((name, self._links(value, address)))
            else:
                rewritten.append((name, value))
        return rewritten

    def reference(self, value: bytes, address: LinkAddress) -> bytes:
        """Rewrite one URI reference."""
        found = WITH_HOST.match(value)
        if found is None:
            # Read against the address, `/x` would lose the prefix, and with it the tag.
            return address.prefix + value if value.startswith(b"/") else value
        scheme, authority = found.groups()
        if not self._is_ours(scheme, authority):
            return value
        begin = b"" if scheme is None else address.scheme + b":"
        return begin + b"//" + address.authority + address.prefix + value[found.end() :]

    def _is_ours(self, scheme: bytes | None, authority: bytes) -> bool:
        """Whether this is where the proxy sends requests.

        `http` and `https` of the same host are both the API if each is at its default port: an API
        behind somebody else's TLS does not know by which it was asked.
        """
        parts = AUTHORITY.fullmatch(authority)
        if parts is None or parts[1].strip(b"[]").lower() != self._host:
            return False
        default = PORTS[scheme.lower() if scheme else self._scheme]
        port = int(parts[2]) if parts[2] else default
        return port == self._port or (port == default and self._port == PORTS[self._scheme])

    def _links(self, value: bytes, address: LinkAddress) -> bytes:
        """Rewrite the targets and anchors of a list of links; one that is broken stays whole."""
        pieces: list[bytes] = []
        at, before = 0, b""
        while at < len(value):
            target, quoted = TARGET.match(value, at), QUOTED.match(value, at)
            found = target or quoted or BETWEEN.match(value, at)
            if found is None:
                return value
            piece = found[0]
            if target is not None:
                piece = b"<" + self.reference(target[1], address) + b">"
            elif quoted is not None and ANCHOR_FOLLOWS.search(before):
                piece = b'"' + self.reference(quoted[1], address) + b'"'
            pieces.append(piece)
            at, before = found.end(), found[0]
        return b"".join(pieces)


# Each connection frames a body in its own way; the body itself is the same.
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
NAME_MOST = 64  # characters that are kept of a name
EDITS_MOST = 64


def header_edits(received: Iterable[Header], sent: Iterable[Header]) -> tuple[str, ...]:
    """Name what went (`-`), came (`+`) and changed (`~`), in the order of the requests."""
    before, after = _by_name(received), _by_name(sent)
    gone = [
        f"{'~' if name in after else '-'}{_shown(name)}"
        for name, values in before.items()
        if after.get(name) != values
    ]
    come = [f"+{_shown(name)}" for name in after if name not in before]
    return tuple((gone + come)[:EDITS_MOST])


def _by_name(headers: Iterable[Header]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)
    return {name: values for name, values in found.items() if name not in FRAMING}


def _shown(name: bytes) -> str:
    text = printable(name[:NAME_MOST].decode("latin-1"))
    return HIDDEN if CREDENTIAL.search(text) else text
