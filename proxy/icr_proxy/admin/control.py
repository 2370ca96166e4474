"""The switches on the admin port: drop a token, block an installation, unblock it, quit.

Who may throw them is decided by `gate`: whoever knows the admin token, or, where there is none,
whoever asks on this machine. The port may be open to the network for scraping. To quit one must be
on this machine, token or not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from icr_proxy.identifiers import TokenKey, canonical_id, is_id
from icr_proxy.server.response import BAD_REQUEST, FORBIDDEN, NOT_ALLOWED, OK, Page, json_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.net.peers import Peer
    from icr_proxy.observability.log import Log

    Thrown = Callable[[str, str | None, str], None]

QUIT = "/quit"
SWITCH = re.compile(r"/(?:tokens/([^/]*)/(drop)|installations/([^/]*)/(block|unblock))")


class Switchable(Protocol):
    """What the switches act on; `tokens.Tokens` is one."""

    def drop(self, key: TokenKey) -> bool:
        """Forget its token; say if there was one."""

    def block(self, key: TokenKey) -> bool:
        """Give it no token; say if that is new."""

    def unblock(self, key: TokenKey) -> bool:
        """Give it tokens again; say if it was blocked."""


class Control:
    """Answers requests to throw a switch."""

    def __init__(
        self,
        *,
        tokens: Switchable,
        stop: Callable[[], bool],
        log: Log,
        thrown: Thrown = lambda _switch, _installation, _peer: None,
    ) -> None:
        """Act on `tokens`; `stop` begins the end of the program, and says if that is new.

        `thrown` hears which switch, for which installation, from where.
        """
        self._tokens = tokens
        self._thrown = thrown
        self._stop = stop
        self._log = log

    def answer(
        self, method: str, path: str, *, peer: Peer, objection: str | None = None
    ) -> Page | None:
        """Do what a request asks, and say what came of it; `None` if the path is no switch.

        With an `objection` nothing is done, and that is what is said.
        """
        found = SWITCH.fullmatch(path)
        if found is None and path != QUIT:
            return None
        if method != "POST":
            return json_page(NOT_ALLOWED, {"message": "Only POST."}, allow=b"POST")
        if objection is not None:
            return _refusal(FORBIDDEN, objection)
        if found is None:
            return self._quit(peer)
        installation = found[1] if found[2] else found[3]
        if not is_id(installation.encode("utf-8", "surrogateescape")):
            return _refusal(BAD_REQUEST, "An installation's ID is 1 to 64 letters, digits, - or _.")
        return self._throw(found[2] or found[4], canonical_id(installation), peer=peer.address)

    def _quit(self, peer: Peer) -> Page:
        if not peer.is_local:
            return _refusal(FORBIDDEN, "Only the proxy's own machine may end it: ask on 127.0.0.1.")
        changed = self._stop()
        self._thrown("quit", None, peer.address)
        self._log.warning("admin.quit", changed=changed, peer=peer.address)
        return json_page(OK, {"quitting": True, "changed": changed})

    def _throw(self, switch: str, installation: str, *, peer: str) -> Page:
        key = TokenKey(installation)
        self._thrown(switch, installation, peer)
        if switch == "drop":
            dropped = self._tokens.drop(key)
            self._log.warning(
                "admin.token_dropped", installation=installation, dropped=dropped, peer=peer
            )
            return json_page(OK, {"installation": installation, "dropped": dropped})
        if switch == "block":
            changed = self._tokens.block(key)
            self._log.warning(
                "admin.installation_blocked", installation=installation, changed=changed, peer=peer
            )
        else:
            changed = self._tokens.unblock(key)
            self._log.warning(
                "admin.installation_unblocked",
                installation=installation,
                changed=changed,
                peer=peer,
            )
        return json_page(
            OK,
            {"installation": installation, "blocked": switch == "block", "changed": changed},
        )


def _refusal(status: int, sentence: str) -> Page:
    return json_page(status, {"message": sentence})
