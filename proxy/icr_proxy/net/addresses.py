"""Addresses as configuration writes them: where to listen, which host, which URL.

Pure text: no name is ever resolved here. Each reader gives the one canonical spelling, so that
two equal addresses are equal strings, and raises ValueError with the rule that was broken.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

EVERY_ADDRESS = "*"  # as a host to listen on: of IPv4 and of IPv6

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HIGHEST_PORT = 65535
_LONGEST_NAME = 253  # RFC 1035, 2.3.4, without the final dot

# Letters, digits, hyphens; the underscore because container networks use it in service names.
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*")
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
_ADDRESS = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(:(?P<port>[0-9]*))?")
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>\[[^\]]*\]|[^:/?#@\[\]]*)(:(?P<port>[^/?#@]*))?(?P<rest>.*)",
    re.DOTALL,
)


def read_host(raw: str) -> str:
    """Read a host name or an IP literal, the latter with or without brackets, without a port."""
    if raw.startswith("[") and raw.endswith("]"):
        return _ipv6(raw[1:-1])
    if raw.count(":") > 1:
        return _ipv6(raw)
    if ":" in raw:
        raise ValueError("is not a host; write it without a port")
    if re.fullmatch(r"[0-9.]+", raw):
        return _ipv4(raw)
    if len(raw) > _LONGEST_NAME or not _NAME.fullmatch(raw):
        raise ValueError("is not a host; write a name such as proxy.example, or an IP address")
    return raw.lower()


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ValueError("is not a host; an IPv4 address is four numbers up to 255") from None


def _ipv6(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise ValueError("is not a host; the IPv6 address is malformed") from None


def split_bind(bind: str) -> tuple[str, int]:
    """Part `host:port`, `[v6]:port` or `*:port` into a host without brackets and a port."""
    host, colon, port = bind.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > _HIGHEST_PORT:
        raise ValueError("is not an address to listen on; write host:port, as in 127.0.0.1:8080")
    if host == EVERY_ADDRESS:
        return host, int(port)
    if not host:
        raise ValueError(
            f"leaves open who may connect; write 127.0.0.1:{port} for this machine only,"
            f" 0.0.0.0:{port} for every IPv4 network, or *:{port} for every network"
        )
    if ":" in host and not host.startswith("["):
        raise ValueError(f"is ambiguous; write an IPv6 address in brackets, as in [::1]:{port}")
    return read_host(host), int(port)


def read_bind(raw: str) -> str:
    """Read an address to listen on; port 0 lets the system choose."""
    host, port = split_bind(raw)
    return f"{bracketed(host)}:{port}"


def read_base_url(raw: str) -> str:
    """Read `scheme://host[:port]`, the whole of what we need to know about the API."""
    return _read_url(raw, "is not a base URL; write https://host or https://host:port")


def read_origin(raw: str) -> str:
    """Read an origin as browsers send it (RFC 6454, 6.2), so that comparing text is enough."""
    origin = _read_url(raw, "is not an origin; write https://host or https://host:port")
    if origin.startswith("http:") and not is_loopback(url_host(origin)):
        raise ValueError("is not safe: anyone on the way can pose as an http origin; use https")
    return origin


def _read_url(raw: str, rule: str) -> str:
    match = _URL.fullmatch(raw)
    if match is None or match["scheme"].lower() not in _DEFAULT_PORTS:
        raise ValueError(rule)
    if "@" in match["rest"] or "@" in match["host"]:
        raise ValueError(f"{rule}, without user or password")
    if match["rest"] not in ("", "/"):
        raise ValueError(f"{rule}, without path, query or fragment")
    scheme, port = match["scheme"].lower(), match["port"]
    if port is not None and not (_PORT.fullmatch(port) and 0 < int(port) <= _HIGHEST_PORT):
        raise ValueError(f"{rule}, with a port from 1 to {_HIGHEST_PORT}")
    host = bracketed(read_host(match["host"]))
    if port is None or int(port) == _DEFAULT_PORTS[scheme]:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}"


def read_address(raw: str) -> str:
    """Read where to connect, `host` or `host:port`."""
    host, port = split_address(raw)
    return bracketed(host) if port is None else f"{bracketed(host)}:{port}"


def split_address(raw: str) -> tuple[str, int | None]:
    """Part `host` or `host:port` into a host without brackets and a port, if there is one."""
    match = _ADDRESS.fullmatch(raw)
    if match is None or match["port"] is None:
        return read_host(raw), None
    port = match["port"]
    if not _PORT.fullmatch(port) or not 0 < int(port) <= _HIGHEST_PORT:
        raise ValueError(f"is not an address to connect to; its port is from 1 to {_HIGHEST_PORT}")
    return read_host(match["host"]), int(port)


def read_network(raw: str) -> str:
    """Read a network as `address/bits`, or one address."""
    try:
        return str(ip_network(raw))
    except ValueError:
        raise ValueError(
            "is not a network; write 10.0.0.0/8 or 2001:db8::/32, all bits after those zero"
        ) from None


def url_host(url: str) -> str:
    """Give the host of a URL that `read_base_url` or `read_origin` has given, unbracketed."""
    match = _URL.fullmatch(url)
    return match["host"].strip("[]") if match else ""


def bracketed(host: str) -> str:
    """Write a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the host; a name other than localhost may lie."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def collide(one: str, other: str) -> bool:
    """Tell whether the second of two binds would find its port taken by the first."""
    (host, port), (other_host, other_port) = split_bind(one), split_bind(other)
    if port != other_port or port == 0:
        return False
    return host == other_host or _covers(host, other_host) or _covers(other_host, host)


def _covers(wildcard: str, host: str) -> bool:
    if wildcard == EVERY_ADDRESS:
        return True
    if wildcard == "0.0.0.0":  # noqa: S104 - compared, not bound
        return ":" not in host
    return wildcard == "::" and ":" in host
