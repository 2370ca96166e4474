"""Authorization on the admin port, and the admin token.

Probes and metrics are for whoever reaches the port. Where `admin.token_file` is set, everything
else takes the token in it, on this machine too: other users and containers share the loopback
address.
Without that file, the status is open, and what shows requests as they pass, or changes something,
is for this machine.

A token in a log would be kept, shipped and searched; so it goes into a file and nowhere else.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from icr_proxy.errors import StartError
from icr_proxy.files import PRIVATE_MODE, read_bytes, replace_file
from icr_proxy.http1.headers import single
from icr_proxy.net import addresses
from icr_proxy.policy.browser_guard import hostname, is_address
from icr_proxy.redaction import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from icr_proxy.http1.headers import Header
    from icr_proxy.net.peers import Peer

TOKEN = b"x-icr-proxy-admin-token"
CONSOLE = b"x-icr-proxy-console"
BROWSERS_SEND = frozenset({b"origin", b"sec-fetch-site"})


class AdminAuthorizer:
    """Authorizes requests to one admin port."""

    def __init__(self, bind: str, *, token: Callable[[], Secret | None]) -> None:
        """Guard the port bound to `bind`; `token` gives the admin token, if there is one."""
        place = addresses.host_and_port(bind)
        self._names = frozenset({"localhost", *(place[:1] if place is not None else ())})
        self._token = token

    @property
    def asks_for_token(self) -> bool:
        """Whether there is an admin token, so that it is needed."""
        return self._token() is not None

    def knows(self, headers: Sequence[Header]) -> bool:
        """Whether the admin token is there, and right (compared in constant time)."""
        token, given = self._token(), single(headers, TOKEN)
        if token is None or given is None:
            return False
        return Secret(given.decode("latin-1")) == token

    def is_console(self, headers: Sequence[Header]) -> bool:
        """Whether our own page asks: a page of the web cannot send the header, nor our `Origin`.

        A browser asks for permission before it sends that header to another site, and gets none.
        """
        origin, host = single(headers, b"origin"), single(headers, b"host")
        if host is None or single(headers, CONSOLE) is None:
            return False
        if origin is not None and origin not in (b"http://" + host, b"https://" + host):
            return False
        # With DNS rebinding a page of the web has our address and our origin, but not our name.
        return self._is_own(host) or self.knows(headers)

    def denial_reason(self, headers: Sequence[Header], *, peer: Peer) -> str | None:
        """Return why this request is denied; `None` if it is allowed."""
        if any(name.lower() in BROWSERS_SEND for name, _ in headers) and not self.is_console(
            headers
        ):
            return "A browser may do this from the console only: open / at this port's address."
        if self.knows(headers):
            return None
        if any(name.lower() == TOKEN for name, _ in headers):
            return "The admin token is not right: each start of the proxy writes a new one."
        if self.asks_for_token:
            return "The admin token is needed: send what is in admin.token_file."
        if not peer.is_local:
            return (
                "This is for the proxy's own machine: ask on 127.0.0.1 (kubectl port-forward does),"
                " or configure admin.token_file."
            )
        return None

    def _is_own(self, host: bytes) -> bool:
        name = hostname(host.decode("latin-1"))
        return name in self._names or is_address(name)


def is_visit(headers: Sequence[Header]) -> bool:
    """Whether a person follows a link to here; the page it stands on does not see what comes.

    https://www.w3.org/TR/fetch-metadata/#sec-fetch-dest-header: `document` is the tab itself.
    """
    mode, into = single(headers, b"sec-fetch-mode"), single(headers, b"sec-fetch-dest")
    return (mode, into) == (b"navigate", b"document")


TOKEN_BYTES = 32


class AdminToken:
    """The token of this run, if the configuration names a file for it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._token: Secret | None = None

    def __call__(self) -> Secret | None:
        """Give the token; `None` if there is none."""
        return self._token

    def issue(self, *, is_trial: bool = False) -> None:
        """Make the token and write it to its file; a trial only finds out whether that works.

        Raises:
            StartError: the file cannot be written.
        """
        if self._path is None:
            return
        token = Secret(secrets.token_urlsafe(TOKEN_BYTES))
        text = token.reveal().encode() + b"\n"
        try:
            replace_file(self._path, [text], mode=PRIVATE_MODE, is_trial=is_trial)
        except OSError as exc:
            raise StartError(
                f"admin.token_file: {self._path} cannot be written: {exc.strerror};"
                " name a file in a directory that the proxy may write to"
            ) from None
        if not is_trial:
            self._token = token

    def withdraw(self) -> None:
        """Take the file away, unless another proxy has put its own there.

        The token stays in force until the port is closed.
        """
        if self._path is None or self._token is None:
            return
        ours = self._token.reveal().encode() + b"\n"
        with suppress(OSError, ValueError):  # it may be anything by now, also a pipe
            if read_bytes(self._path, limit=len(ours)) == ours:
                self._path.unlink()
