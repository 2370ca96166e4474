"""The admin API: probes, metrics, status, and the actions on tokens and installations.

Who may throw them is decided by `auth`: whoever knows the admin token, or, where there is none,
whoever asks on this machine. The port may be open to the network for scraping. To quit one must be
on this machine, token or not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import msgspec

from icr_proxy.admin.auth import is_visit
from icr_proxy.admin.console_pages import CLOSE
from icr_proxy.errors import ProxyError
from icr_proxy.http1.headers import fields_of
from icr_proxy.http1.problem import kind_of
from icr_proxy.identifiers import TokenKey, canonical_id, is_id
from icr_proxy.server.connection import peer_of
from icr_proxy.server.request import HTTP_1_1
from icr_proxy.server.response import (
    BAD_REQUEST,
    CRASHED,
    FORBIDDEN,
    JSON,
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    UNAVAILABLE,
    Page,
    ResponseWriter,
    json_page,
    send_page,
    text_page,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from icr_proxy.admin.auth import AdminAuthorizer
    from icr_proxy.admin.console_pages import Console
    from icr_proxy.net.peers import Peer
    from icr_proxy.observability.log import Log
    from icr_proxy.policy.browser_guard import HostGuard, OriginGuard
    from icr_proxy.server.request import Request

    OnAction = Callable[[str, str | None, str], None]

STATUS = "/status"
INDEX = "/healthz /startupz /readyz /metrics /status"
CONSOLE = "/ in a browser is the console; it reads /events /facts and POST /explain"
SWITCHES = "POST /tokens/ID/drop /installations/ID/block /installations/ID/unblock /quit"


class AdminApi:
    """Serves the admin port. What it shows comes in as functions."""

    def __init__(
        self,
        *,
        started: Callable[[], bool],
        ready: Callable[[], bool],
        metrics: Callable[[str], tuple[bytes, bytes]],
        status: Callable[[], Mapping[str, object]],
        control: AdminActions,
        gate: AdminAuthorizer,
        hosts: HostGuard,
        origins: OriginGuard,
        crashed: Callable[[BaseException, str], None],
        console: Console | None = None,
    ) -> None:
        self._index = "\n".join((INDEX, SWITCHES, *([CONSOLE] if console is not None else [])))
        self._pages: dict[str, Callable[[Request], Page]] = {
            "/": lambda _: text_page(OK, self._index),
            # Alive means that the event loop turns, which it shows by answering.
            "/healthz": lambda _: text_page(OK, "ok"),
            "/startupz": lambda _: _probe(started(), "starting"),
            # Ready without needing the API: a sidecar that waits for the API would take its
            # application down with it.
            "/readyz": lambda _: _probe(ready(), "not ready"),
            "/metrics": lambda request: _exposition(metrics, request),
            STATUS: lambda _: Page(
                status=OK, content_type=JSON, body=msgspec.json.encode(status())
            ),
        }
        self._control = control
        self._console = console
        self._gate = gate
        self._hosts = hosts
        self._origins = origins
        self._crashed = crashed

    async def __call__(self, request: Request) -> ResponseWriter:
        """Answer one request."""
        path = request.raw_path.partition("?")[0]
        try:
            page = await self._answer(request, path)
        except ProxyError as error:
            page = text_page(kind_of(error).status, error.detail)
        except Exception as error:  # noqa: BLE001  # the one place: the server would not log it
            self._crashed(error, path)
            page = text_page(CRASHED, "something went wrong inside the proxy; its log tells more")
        return page if isinstance(page, ResponseWriter) else await send_page(request, page)

    async def respond_error(self, request: Request, error: ProxyError) -> ResponseWriter:
        """Answer a request that could not even be parsed."""
        return await send_page(request, text_page(BAD_REQUEST, error.detail), closing=True)

    async def _answer(self, request: Request, path: str) -> Page | ResponseWriter:
        received, peer = request.raw_headers, peer_of(request)
        self._keep_out(request, path)
        if path in self._pages and not (path == STATUS and self._gate.asks_for_token):
            return self._page(request, path)
        objection = self._gate.denial_reason(received, peer=peer)
        if path == STATUS and objection is not None:
            return json_page(FORBIDDEN, {"message": objection})
        thrown = self._control.answer(request.method, path, peer=peer, objection=objection)
        if thrown is not None:
            return thrown
        if self._console is not None and path in CLOSE:
            if objection is not None:
                return json_page(FORBIDDEN, {"message": objection})
            return await self._console.closer(request, path)
        return self._page(request, path)

    def _keep_out(self, request: Request, path: str) -> None:
        """Refuse pages of the web: they could read the status, if their browser is here."""
        received = request.raw_headers
        self._hosts.check(received, required=request.version >= HTTP_1_1)
        if path == "/" and request.method == "GET" and is_visit(received):
            return
        if self._gate.is_console(received):
            received = tuple(header for header in received if header[0].lower() != b"origin")
        self._origins.check(fields_of(received))

    def _page(self, request: Request, path: str) -> Page:
        make = self._pages.get(path)
        if self._console is not None:
            make = self._console.file(path, request.raw_headers) or make
        if make is None:
            return text_page(NOT_FOUND, f"there is: {self._index}")
        if request.method not in ("GET", "HEAD"):
            return text_page(NOT_ALLOWED, "only GET and HEAD", allow=b"GET, HEAD")
        return make(request)


def _probe(good: bool, bad: str) -> Page:  # noqa: FBT001  # the one thing a probe says
    return text_page(OK, "ok") if good else text_page(UNAVAILABLE, bad)


def _exposition(metrics: Callable[[str], tuple[bytes, bytes]], request: Request) -> Page:
    body, content_type = metrics(request.first(b"accept"))
    return Page(status=OK, content_type=content_type, body=body)


QUIT = "/quit"
SWITCH = re.compile(r"/(?:tokens/([^/]*)/(drop)|installations/([^/]*)/(block|unblock))")


class ActionTarget(Protocol):
    """What admin actions act on; `token_cache.TokenCache` is one."""

    def invalidate(self, key: TokenKey) -> bool:
        """Forget its token; say if there was one."""

    def block(self, key: TokenKey) -> bool:
        """Give it no token; say if that is new."""

    def unblock(self, key: TokenKey) -> bool:
        """Give it tokens again; say if it was blocked."""


class AdminActions:
    """Performs the actions of the admin port."""

    def __init__(
        self,
        *,
        tokens: ActionTarget,
        stop: Callable[[], bool],
        log: Log,
        on_action: OnAction = lambda _switch, _installation, _peer: None,
    ) -> None:
        """Act on `tokens`; `stop` begins the end of the program, and says if that is new.

        `thrown` hears which switch, for which installation, from where.
        """
        self._tokens = tokens
        self._on_action = on_action
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
        self._on_action("quit", None, peer.address)
        self._log.warning("admin.quit", changed=changed, peer=peer.address)
        return json_page(OK, {"quitting": True, "changed": changed})

    def _throw(self, switch: str, installation: str, *, peer: str) -> Page:
        key = TokenKey(installation)
        self._on_action(switch, installation, peer)
        if switch == "drop":
            dropped = self._tokens.invalidate(key)
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
