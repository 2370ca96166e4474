"""Egress proxies of the environment, which other programs use and this one does not."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from icr_proxy.net.addresses import is_loopback
from icr_proxy.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("http_proxy", "https_proxy", "all_proxy")
PORTS = {"https": 443, "http": 80}


def unused_proxies(environ: Mapping[str, str], *, base_url: str) -> tuple[str, ...]:
    """Give the variables that name a proxy for the API, as `NAME=value`, credentials hidden.

    None, if `NO_PROXY` covers the API's host. All of them count, whatever the scheme of the base
    URL: whoever sets one of them means that there is no other way out.
    """
    url = urlsplit(base_url)
    exempt = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if is_exempt(url.hostname or "", exempt, port=url.port or PORTS[url.scheme]):
        return ()
    names = sorted(name for name, text in environ.items() if text and name.lower() in NAMES)
    return tuple(f"{name}={_without_credentials(environ[name])}" for name in names)


def is_exempt(host: str, listed: str, *, port: int) -> bool:
    """Tell whether a host is in `NO_PROXY`, as most programs read it.

    A name covers what is below it; there may be a port, an address, or a network.
    """
    return any(_covers(entry, host, port) for entry in listed.lower().replace(",", " ").split())


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, _, behind = entry.rpartition(":")
    if name and behind.isdecimal() and (":" not in name or name.endswith("]")):
        if int(behind) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = entry.removeprefix("*").removeprefix(".")
        return bool(name) and f".{host}".endswith(f".{name}")
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return entry == "localhost" and is_loopback(host)


def _without_credentials(value: str) -> str:
    """Return the URL of a proxy with `***` in place of user and password."""
    scheme, separator, rest = value.partition("://")
    if not separator or not scheme.isalnum():
        scheme, separator, rest = "", "", value
    hidden, at, place = rest.rpartition("@")
    text = f"{scheme}{separator}{'***' if hidden else ''}{at}{place.partition('/')[0]}"
    return printable(text, instead="?")[:200]
