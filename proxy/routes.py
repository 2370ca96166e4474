"""What a request resolves to: which target is forwarded, and whose credential goes with it.

Decisions about a path are made on its undisguised copy (`paths`); the bytes that were received are
what is forwarded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from proxy.access import TokenKey
from proxy.errors import (
    BadRequestError,
    EndpointRefusedError,
    InstallationInvalidError,
    InstallationRequiredError,
    NotImplementedMethodError,
)
from proxy.operations import Operation, match
from proxy.paths import decision_path, is_app_path

if TYPE_CHECKING:
    from collections.abc import Iterable

Header = tuple[bytes, bytes]

# The ID ends up in the path of a request signed with the App JWT, hence the strict alphabet.
INSTALLATION_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
# What broken callers send instead of an ID; no installation is called so.
NOT_AN_ID = frozenset({b"undefined", b"null", b"none", b"nan"})
NOT_FORWARDED = frozenset({"CONNECT", "TRACE"})
DEFAULT_PORTS = {"http": 80, "https": 443}
# RFC 9112, 3.2.2; the scheme decides the port when none is written.
ABSOLUTE = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """A request target: as forwarded, as decided on, and what it asks for."""

    forwarded: str
    path: str
    operation: Operation


class Router:
    """The rules of one listener, compiled once."""

    def __init__(self, *, tag: str, base_url: str, installation: str | None) -> None:
        url = urlsplit(base_url)
        self._host = url.hostname or ""
        self._port = url.port or DEFAULT_PORTS[url.scheme]
        self._tag = tag.lower().encode("ascii")
        self._tag_name = tag
        self._default = TokenKey(installation) if installation is not None else None

    def read_target(self, method: str, target: str) -> Target:
        """Take the request line apart.

        Raises:
            NotImplementedMethodError: CONNECT or TRACE.
            BadRequestError: a target that is neither a path nor a URL of the API.
        """
        if method in NOT_FORWARDED:
            raise NotImplementedMethodError(f"{method} is not forwarded")
        if not target.startswith("/"):
            target = self._from_absolute(target)
        path = decision_path(target)
        return Target(forwarded=target, path=path, operation=match(method, path))

    def _from_absolute(self, target: str) -> str:
        """Accept what a tool sends that knows only `HTTP_PROXY`, for the API's own host."""
        found = ABSOLUTE.fullmatch(target)
        if found is None:
            raise BadRequestError("the request target is neither a path nor a URL")
        scheme, authority, rest = found.groups()
        try:
            url = urlsplit(f"//{authority}")
            host, port = url.hostname, url.port or DEFAULT_PORTS[scheme.lower()]
        except ValueError:
            host, port = None, 0
        if host != self._host or "@" in authority or port not in (self._port, 80):
            raise BadRequestError("this proxy forwards to the configured API only")
        return rest if rest.startswith("/") else "/" + rest

    def choose_key(self, target: Target, headers: Iterable[Header]) -> TokenKey:
        """Say whose token this request gets.

        Raises:
            EndpointRefusedError: the target lies under `/app`, however it is written.
            InstallationInvalidError: the tag is repeated or names nothing that can exist.
            InstallationRequiredError: there is no tag and the listener has no default.
        """
        if is_app_path(target.forwarded):
            raise EndpointRefusedError(
                "the endpoints under /app need the app's own signature and are closed here"
            )
        tags = [value for name, value in headers if name.lower() == self._tag]
        if not tags:
            if self._default is None:
                raise InstallationRequiredError(
                    f"send the header {self._tag_name} with the ID of an installation"
                )
            return self._default
        if len(tags) > 1:
            raise InstallationInvalidError(f"send the header {self._tag_name} exactly once")
        return TokenKey(self._parse_id(tags[0]))

    def _parse_id(self, value: bytes) -> str:
        if not INSTALLATION_ID.fullmatch(value) or value.lower() in NOT_AN_ID:
            raise InstallationInvalidError(
                f"the header {self._tag_name} must hold an installation ID: "
                "1 to 64 letters, digits, - or _"
            )
        return value.decode("ascii")
