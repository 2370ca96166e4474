"""A page on the web must not be able to use a proxy on loopback.

Browsers are callers too: any page can send simple requests to 127.0.0.1, and with DNS rebinding it
can even read the answers. So `Host` must be one of ours, and a request that a browser marks as
coming from another site is refused whatever its method.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from icr_proxy.errors import BadRequestError, BrowserRefusedError, WrongHostError
from icr_proxy.http1.headers import fields_of, only
from icr_proxy.http1.request_head import HOST
from icr_proxy.memo import Memo
from icr_proxy.net import addresses

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.http1.headers import Fields, Header


# https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header: `none` is a person's own doing.
OWN_SITES = frozenset({b"same-origin", b"none"})
PREFLIGHT_SECONDS = b"600"
VARY = (b"Vary", b"Origin")
# Chromium 104 to 141 asked this before a page of the internet reached into a private network; since
# then it asks the person in front of it instead, and a server has no say
# (https://wicg.github.io/private-network-access/, https://wicg.github.io/local-network-access/).
PRIVATE_NETWORK = (b"Access-Control-Allow-Private-Network", b"true")


class ClientTls(Protocol):
    """The TLS of a listener."""

    @property
    def verifies_clients(self) -> bool:
        """Whether clients need a certificate."""


class GuardedListener(Protocol):
    """What the guard needs to know of a listener."""

    @property
    def bind(self) -> str:
        """Where it listens."""

    @property
    def hosts(self) -> Sequence[str]:
        """The names by which clients may call it."""

    @property
    def exposed(self) -> bool:
        """Whether other machines are meant to reach it."""

    @property
    def tls(self) -> ClientTls:
        """Its TLS."""


class HostGuard:
    """Which names callers may use for one listener."""

    def __init__(self, listener: GuardedListener, *, base_url: str) -> None:
        bound = (addresses.host_and_port(listener.bind) or ("localhost", 0))[0]
        # What a socket of systemd's is bound to is not known yet: what is meant counts.
        inherited = addresses.systemd_name(listener.bind) is not None
        meant = listener.exposed or listener.tls.verifies_clients
        reached = meant if inherited else addresses.is_reachable(listener.bind)
        self._any = not listener.hosts and reached
        upstream = urlsplit(base_url).hostname or ""
        self._names = frozenset(
            name.lower() for name in (*listener.hosts, "localhost", bound, upstream)
        )
        self._is_ours: Memo[bytes, bool] = Memo(self._names_us)

    def check(self, headers: Iterable[Header], *, required: bool) -> None:
        """Pass headers whose `Host` is ours; raises what `check_fields` raises."""
        self.check_fields(fields_of(headers), required=required)

    def check_fields(self, fields: Fields, *, required: bool, is_overruled: bool = False) -> None:
        """Pass a request whose `Host` is ours, or `is_overruled` by a target that names the host.

        Raises:
            WrongHostError: it is somebody else's name.
            BadRequestError: it is missing from an HTTP/1.1 request, repeated, or malformed
                (RFC 9112, 3.2).
        """
        values = fields.get(b"host", ())
        if len(values) > 1 or (required and not values):
            raise BadRequestError("send exactly one Host header")
        if values and not self._is_ours[values[0]] and not is_overruled:
            raise WrongHostError(
                "this listener does not answer to that Host; add it to its hosts if it should"
            )

    def _names_us(self, value: bytes) -> bool:
        if HOST.fullmatch(value) is None:
            raise BadRequestError("the Host header is no name or address")
        host = hostname(value.decode("latin-1"))
        return self._any or host in self._names or is_address(host)


def hostname(authority: str) -> str:
    """Cut the port off `host:port` or `[v6]:port`, in lower case."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower()


def is_address(host: str) -> bool:
    """Whether it is an IP literal: rebinding needs a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class OriginGuard:
    """Which web pages may use the proxy; none by default."""

    def __init__(self, allow_origins: Sequence[str]) -> None:
        self._allowed = frozenset(origin.encode("ascii") for origin in allow_origins)

    def headers(self, origin: bytes | None) -> list[Header]:
        """Give what an answer says about origins: that the page which asks may read it.

        Where some pages may, every answer says that it depends on who asks; else a cache would hand
        an answer for nobody's page to a page
        (https://fetch.spec.whatwg.org/#cors-protocol-and-http-caches).
        """
        if origin is not None:
            return origin_headers(origin)
        return [VARY] if self._allowed else []

    def check(self, fields: Fields) -> bytes | None:
        """Give the allowed origin that asks, or `None` if no browser's other site does.

        Raises:
            BrowserRefusedError: a page of a site that is not allowed asks.
        """
        origins = fields.get(b"origin", ())
        if origins:
            if len(origins) == 1 and origins[0] in self._allowed:
                return origins[0]
            raise BrowserRefusedError("pages of that origin may not use this proxy")
        if not OWN_SITES.issuperset(fields.get(b"sec-fetch-site", ())):
            raise BrowserRefusedError("pages of another site may not use this proxy")
        return None


def is_preflight(method: str, fields: Fields) -> bool:
    """Whether a browser asks for permission first.

    https://fetch.spec.whatwg.org/#cors-preflight-fetch
    """
    return method == "OPTIONS" and only(fields, b"access-control-request-method") is not None


def preflight(fields: Fields) -> list[Header]:
    """Grant an allowed origin what it asks for; the API is not asked."""
    method = only(fields, b"access-control-request-method") or b""
    granted = [
        (b"Access-Control-Allow-Methods", method),
        (b"Access-Control-Max-Age", PREFLIGHT_SECONDS),
    ]
    asked = only(fields, b"access-control-request-headers")
    if asked:
        granted.append((b"Access-Control-Allow-Headers", asked))
    if only(fields, b"access-control-request-private-network") == b"true":
        granted.append(PRIVATE_NETWORK)
    return granted


def origin_headers(origin: bytes) -> list[Header]:
    """Let the page of this origin read the answer."""
    return [
        (b"Access-Control-Allow-Origin", origin),
        (b"Access-Control-Expose-Headers", b"*"),
        VARY,
    ]


def without_origin_headers(headers: Iterable[Header]) -> list[Header]:
    """Drop what the API says about origins: it speaks of its own callers, not of ours."""
    return [h for h in headers if not h[0].lower().startswith(b"access-control-allow-")]
