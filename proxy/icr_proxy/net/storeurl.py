"""Where Redis is, as a URL says it. The URL may hold a password, so no error ever quotes it."""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec

from icr_proxy.net.addresses import read_host
from icr_proxy.redaction import Secret

EXAMPLE = "redis://127.0.0.1:6379"
NEEDED = f"is not the URL of a Redis, as in {EXAMPLE}, rediss://host or unix:///run/redis.sock"
PORT = 6379
HIGHEST_PORT = 65535
URL = re.compile(
    r"(?P<scheme>rediss?|unix)://"
    r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<host>\[[^\]/?#@]*\]|[^:/?#@\[\]]*)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[^?#]*)?(?:\?db=(?P<db>[0-9]{1,4}))?"
)
DATABASE = re.compile(r"/?|/([0-9]{1,4})")


class StoreAddress(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a Redis."""

    host: str = ""
    port: int = PORT
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
    found = URL.fullmatch(text)
    if found is None:
        raise ValueError(NEEDED)
    user, password = unquote(found["user"] or ""), unquote(found["password"] or "")
    where = _socket(found) if found["scheme"] == "unix" else _network(found)
    return StoreAddress(
        host=where.host,
        port=where.port,
        path=where.path,
        is_encrypted=found["scheme"] == "rediss",
        user=user or None,
        password=Secret(password) if password else None,
        database=where.database,
    )


def _socket(found: re.Match[str]) -> StoreAddress:
    path = unquote(found["path"] or "")
    if found["host"] or found["port"] or len(path) < len("/x"):
        raise ValueError(NEEDED)
    return StoreAddress(path=path, database=int(found["db"] or 0))


def _network(found: re.Match[str]) -> StoreAddress:
    database = DATABASE.fullmatch(found["path"] or "")
    port = int(found["port"] or PORT)
    if database is None or not 0 < port <= HIGHEST_PORT or found["db"] is not None:
        raise ValueError(NEEDED)
    try:
        host = read_host(found["host"])
    except ValueError:
        raise ValueError(NEEDED) from None
    return StoreAddress(host=host, port=port, database=int(database[1] or 0))
