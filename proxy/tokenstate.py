"""What a running proxy knows of one token, as its admin port tells."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from proxy import binds
from proxy.probing import connection_to

if TYPE_CHECKING:
    from proxy.access import TokenKey

STATUS_LIMIT = 8 * 1024 * 1024  # bytes; a thousand tokens have half a megabyte
OK = 200


class ShownToken(msgspec.Struct):
    """A token in `/status`."""

    kind: str
    installation: str | None
    state: str
    expires_in: float
    generation: int
    fingerprint: str


class ShownStatus(msgspec.Struct):
    """What is used of `/status`."""

    app: str
    upstream: str
    tokens: list[ShownToken]
    blocked: list[str] = []


@dataclass(frozen=True, slots=True)
class TokenState:
    """What is known, and a sentence for people."""

    known: bool
    sentence: str
    token: ShownToken | None = None


def ask_token_state(bind: str, key: TokenKey, *, app: str, upstream: str) -> TokenState:
    """Ask the admin port at `bind`; whatever happens, there is a sentence."""
    place = binds.host_and_port(bind)
    if binds.systemd_name(bind) is not None or (place is not None and place[1] == 0):
        return TokenState(known=False, sentence="not asked: the admin port is not fixed")
    connection, where = connection_to(bind)
    try:
        status = msgspec.json.decode(_read(connection), type=ShownStatus)
    except OSError:
        return TokenState(known=False, sentence=f"unknown: no proxy answers at {where}")
    except (http.client.HTTPException, msgspec.DecodeError, UnicodeDecodeError):
        return TokenState(known=False, sentence=f"unknown: what answers at {where} is no icr-proxy")
    if (status.app, status.upstream) != (app, upstream):
        return TokenState(
            known=False, sentence=f"unknown: the proxy at {where} serves another app or API"
        )
    return token_state(status, key, where=f"at {where}")


def token_state(status: ShownStatus, key: TokenKey, *, where: str) -> TokenState:
    """Say what this status tells of one token; `where` says whose status it is."""
    if key.installation in status.blocked:
        return TokenState(known=True, sentence=f"none {where}, where it is blocked")
    mine = (key.kind, key.installation)
    token = next((each for each in status.tokens if (each.kind, each.installation) == mine), None)
    if token is None:
        return TokenState(known=True, sentence=f"none {where}; the first request has one made")
    sentence = (
        f"{token.state} {where}, {token.expires_in / 60:.0f} minutes left,"
        f" generation {token.generation}, fingerprint {token.fingerprint}"
    )
    shown = "".join(char for char in sentence if char.isprintable())
    return TokenState(known=True, sentence=shown, token=token)


def _read(connection: http.client.HTTPConnection) -> bytes:
    try:
        connection.request("GET", "/status")
        response = connection.getresponse()
        if response.status != OK:
            raise http.client.HTTPException
        return response.read(STATUS_LIMIT)
    finally:
        connection.close()
