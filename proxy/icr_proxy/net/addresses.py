"""Addresses as configuration writes them: hosts, URLs, places to listen on, Redis; pure text.

Pure text: no name is ever resolved here. Each reader gives the one canonical spelling, so that
two equal addresses are equal strings, and raises ValueError with the rule that was broken.

Pure text, like `addresses`; whether it can be had is found out when it is opened.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote

import msgspec

from icr_proxy.redaction import Secret

EVERY_ADDRESS = "*"  # as a host to listen on: of IPv4 and of IPv6

DEFAULT_PORTS = {"http": 80, "https": 443}
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


def read_tcp_bind(raw: str) -> str:
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
    if match is None or match["scheme"].lower() not in DEFAULT_PORTS:
        raise ValueError(rule)
    if "@" in match["rest"] or "@" in match["host"]:
        raise ValueError(f"{rule}, without user or password")
    if match["rest"] not in ("", "/"):
        raise ValueError(f"{rule}, without path, query or fragment")
    scheme, port = match["scheme"].lower(), match["port"]
    if port is not None and not (_PORT.fullmatch(port) and 0 < int(port) <= _HIGHEST_PORT):
        raise ValueError(f"{rule}, with a port from 1 to {_HIGHEST_PORT}")
    host = bracketed(read_host(match["host"]))
    if port is None or int(port) == DEFAULT_PORTS[scheme]:
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


def tcp_collide(one: str, other: str) -> bool:
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


UNIX = "unix:"
SYSTEMD = "systemd:"

_LONGEST_PATH = 107  # bytes; Linux's `sun_path` without its final NUL (unix(7))
_SOCKET_NAME = re.compile(r"[!-9;-~]{1,255}")  # FileDescriptorName= of systemd.socket(5): no colon


def read_bind(raw: str) -> str:
    """Give the canonical spelling; raise ValueError with the rule that was broken."""
    if raw.startswith(UNIX):
        return UNIX + _read_path(raw.removeprefix(UNIX))
    if raw.startswith(SYSTEMD):
        name = raw.removeprefix(SYSTEMD)
        if not _SOCKET_NAME.fullmatch(name):
            raise ValueError(
                "names no socket; write systemd:NAME (its FileDescriptorName=), or systemd:0 for"
                " the first one"
            )
        return SYSTEMD + name
    return read_tcp_bind(raw)


def _read_path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("is not a Unix socket; write unix:/ and the whole path of a file")
    if len(path.encode()) > _LONGEST_PATH:
        raise ValueError(
            f"is too long for a Unix socket; its path has {_LONGEST_PATH} bytes at most"
        )
    return path


def unix_path(bind: str) -> str | None:
    """Give the path of a Unix socket, or None if it is something else."""
    return bind.removeprefix(UNIX) if bind.startswith(UNIX) else None


def systemd_name(bind: str) -> str | None:
    """Give the name of a socket that systemd passes, or None if it is something else."""
    return bind.removeprefix(SYSTEMD) if bind.startswith(SYSTEMD) else None


def host_and_port(bind: str) -> tuple[str, int] | None:
    """Give both, or None if it is no address."""
    if bind.startswith((UNIX, SYSTEMD)):
        return None
    return split_bind(bind)


def is_reachable(bind: str) -> bool:
    """Tell whether other machines can connect; of a socket of systemd's, only opening tells."""
    place = host_and_port(bind)
    return place is not None and not is_loopback(place[0])


def collide(one: str, other: str) -> bool:
    """Tell whether one of the two would find its place taken by the other."""
    if host_and_port(one) is None or host_and_port(other) is None:
        return one == other
    return tcp_collide(one, other)


REDIS_EXAMPLE = "redis://127.0.0.1:6379"
REDIS_URL_NEEDED = (
    f"is not the URL of a Redis, as in {REDIS_EXAMPLE}, rediss://host or unix:///run/redis.sock"
)
REDIS_PORT = 6379
HIGHEST_PORT = 65535
REDIS_URL = re.compile(
    r"(?P<scheme>rediss?|unix)://"
    r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<host>\[[^\]/?#@]*\]|[^:/?#@\[\]]*)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[^?#]*)?(?:\?db=(?P<db>[0-9]{1,4}))?"
)
REDIS_DATABASE = re.compile(r"/?|/([0-9]{1,4})")


class StoreAddress(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a Redis."""

    host: str = ""
    port: int = REDIS_PORT
    path: str | None = None
    """Of a Unix socket, in place of host and port."""
    is_encrypted: bool = False
    user: str | None = None
    password: Secret | None = None
    database: int = 0


def read_store_url(text: str) -> StoreAddress:
    """Read `redis://`, `rediss://` or `unix://`, with user, password and number of the database.

    Raises:
        ValueError: with the rest of a sentence that begins with the URL.
    """
    found = REDIS_URL.fullmatch(text)
    if found is None:
        raise ValueError(REDIS_URL_NEEDED)
    user, password = unquote(found["user"] or ""), unquote(found["password"] or "")
    where = _redis_socket(found) if found["scheme"] == "unix" else _redis_network(found)
    return StoreAddress(
        host=where.host,
        port=where.port,
        path=where.path,
        is_encrypted=found["scheme"] == "rediss",
        user=user or None,
        password=Secret(password) if password else None,
        database=where.database,
    )


def _redis_socket(found: re.Match[str]) -> StoreAddress:
    path = unquote(found["path"] or "")
    if found["host"] or found["port"] or len(path) < len("/x"):
        raise ValueError(REDIS_URL_NEEDED)
    return StoreAddress(path=path, database=int(found["db"] or 0))


def _redis_network(found: re.Match[str]) -> StoreAddress:
    database = REDIS_DATABASE.fullmatch(found["path"] or "")
    port = int(found["port"] or REDIS_PORT)
    if database is None or not 0 < port <= HIGHEST_PORT or found["db"] is not None:
        raise ValueError(REDIS_URL_NEEDED)
    try:
        host = read_host(found["host"])
    except ValueError:
        raise ValueError(REDIS_URL_NEEDED) from None
    return StoreAddress(host=host, port=port, database=int(database[1] or 0))
