"""The second listener: probes, metrics, status, switches, the console. It forwards nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp.http import HttpVersion11

from icr_proxy.admin.auth import is_visit
from icr_proxy.admin.console_pages import CLOSE
from icr_proxy.errors import ProxyError
from icr_proxy.http1.problem import kind_of
from icr_proxy.server.connection import peer_of
from icr_proxy.server.response import (
    BAD_REQUEST,
    CRASHED,
    FORBIDDEN,
    JSON,
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    UNAVAILABLE,
    Answer,
    Page,
    json_page,
    send_page,
    text_page,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from icr_proxy.admin.auth import Gate
    from icr_proxy.admin.console_pages import Console
    from icr_proxy.admin.control import Control
    from icr_proxy.policy.browser_guard import HostGuard, OriginGuard
    from icr_proxy.server.request import Request

STATUS = "/status"
INDEX = "/healthz /startupz /readyz /metrics /status"
CONSOLE = "/ in a browser is the console; it reads /events /facts and POST /explain"
SWITCHES = "POST /tokens/ID/drop /installations/ID/block /installations/ID/unblock /quit"


class Admin:
    """Answers on the admin port. What it shows comes in as functions."""

    def __init__(
        self,
        *,
        started: Callable[[], bool],
        ready: Callable[[], bool],
        metrics: Callable[[str], tuple[bytes, bytes]],
        status: Callable[[], Mapping[str, object]],
        control: Control,
        gate: Gate,
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

    async def __call__(self, request: Request) -> Answer:
        """Answer one request."""
        path = request.raw_path.partition("?")[0]
        try:
            page = await self._answer(request, path)
        except ProxyError as error:
            page = text_page(kind_of(error).status, error.detail)
        except Exception as error:  # noqa: BLE001  # the one place: the server would not log it
            self._crashed(error, path)
            page = text_page(CRASHED, "something went wrong inside the proxy; its log tells more")
        return page if isinstance(page, Answer) else await send_page(request, page)

    async def refuse(self, request: Request, error: ProxyError) -> Answer:
        """Answer a request that could not even be parsed."""
        return await send_page(request, text_page(BAD_REQUEST, error.detail), closing=True)

    async def _answer(self, request: Request, path: str) -> Page | Answer:
        received, peer = request.raw_headers, peer_of(request)
        self._keep_out(request, path)
        if path in self._pages and not (path == STATUS and self._gate.asks_for_token):
            return self._page(request, path)
        objection = self._gate.objection(received, peer=peer)
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
        self._hosts.check(received, required=request.version >= HttpVersion11)
        if path == "/" and request.method == "GET" and is_visit(received):
            return
        if self._gate.is_console(received):
            received = tuple(header for header in received if header[0].lower() != b"origin")
        self._origins.check(received)

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
