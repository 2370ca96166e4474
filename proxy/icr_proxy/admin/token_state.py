"""What a running proxy knows of one token, as its admin port tells."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.admin.client import connection_to, token_header
from icr_proxy.errors import DECODE_ERRORS, StartError
from icr_proxy.net import addresses
from icr_proxy.redaction import printable

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.identifiers import TokenKey

STATUS_LIMIT = 8 * 1024 * 1024  # bytes; a thousand tokens have half a megabyte
OK, FORBIDDEN = 200, 403
UNANSWERED = (
    StartError,
    OSError,
    http.client.HTTPException,
    *DECODE_ERRORS,
)


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


def ask_token_state(
    bind: str, key: TokenKey, *, app: str, upstream: str, token_file: Path | None = None
) -> TokenState:
    """Ask the admin port at `bind`; whatever happens, there is a sentence."""
    place = addresses.host_and_port(bind)
    if addresses.systemd_name(bind) is not None or (place is not None and place[1] == 0):
        return TokenState(known=False, sentence="not asked: the admin port is not fixed")
    connection, where = connection_to(bind)
    try:
        status = msgspec.json.decode(
            _read(connection, headers=token_header(token_file)), type=ShownStatus
        )
    except UNANSWERED as error:
        return TokenState(known=False, sentence=f"unknown: {_why(error, where=where)}")
    if (status.app, status.upstream) != (app, upstream):
        return TokenState(
            known=False, sentence=f"unknown: the proxy at {where} serves another app or API"
        )
    return token_state(status, key, where=f"at {where}")


def _why(error: Exception, *, where: str) -> str:
    if isinstance(error, StartError):
        return error.detail
    if isinstance(error, PermissionError):
        return f"{where} wants another admin token"
    if isinstance(error, OSError):
        return f"no proxy answers at {where}"
    return f"what answers at {where} is no icr-proxy"


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
    return TokenState(known=True, sentence=printable(sentence), token=token)


def _read(connection: http.client.HTTPConnection, *, headers: dict[str, str]) -> bytes:
    try:
        connection.request("GET", "/status", headers=headers)
        response = connection.getresponse()
        if response.status == FORBIDDEN:
            raise PermissionError
        if response.status != OK:
            raise http.client.HTTPException
        return response.read(STATUS_LIMIT)
    finally:
        connection.close()
