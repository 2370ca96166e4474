"""The second listener: probes, metrics, status, switches. It forwards nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import HttpVersion11

from proxy.callerconnection import peer_of
from proxy.errors import ProxyError
from proxy.pages import (
    BAD_REQUEST,
    CRASHED,
    JSON,
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    UNAVAILABLE,
    Page,
    send_page,
    text_page,
)
from proxy.problems import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.web import BaseRequest

    from proxy.answers import Answer
    from proxy.browsers import HostGuard, OriginGuard
    from proxy.control import Control

INDEX = "/healthz /startupz /readyz /metrics /status"
SWITCHES = "POST /tokens/ID/drop /installations/ID/block /installations/ID/unblock"


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
        hosts: HostGuard,
        origins: OriginGuard,
        crashed: Callable[[BaseException, str], None],
    ) -> None:
        self._pages: dict[str, Callable[[BaseRequest], Page]] = {
            "/": lambda _: text_page(OK, f"{INDEX}\n{SWITCHES}"),
            # Alive means that the event loop turns, which it shows by answering.
            "/healthz": lambda _: text_page(OK, "ok"),
            "/startupz": lambda _: _probe(started(), "starting"),
            # Ready without needing the API: a sidecar that waits for the API would take its
            # application down with it.
            "/readyz": lambda _: _probe(ready(), "not ready"),
            "/metrics": lambda request: _exposition(metrics, request),
            "/status": lambda _: Page(
                status=OK, content_type=JSON, body=msgspec.json.encode(status())
            ),
        }
        self._control = control
        self._hosts = hosts
        self._origins = origins
        self._crashed = crashed

    async def __call__(self, request: BaseRequest) -> Answer:
        """Answer one request."""
        path = request.raw_path.partition("?")[0]
        try:
            page = self._answer(request, path)
        except ProxyError as error:
            page = text_page(kind_of(error).status, error.detail)
        except Exception as error:  # noqa: BLE001  # the one place: the server would not log it
            self._crashed(error, path)
            page = text_page(CRASHED, "something went wrong inside the proxy; its log tells more")
        return await send_page(request, page)

    async def refuse(self, request: BaseRequest, error: ProxyError) -> Answer:
        """Answer a request that could not even be parsed."""
        return await send_page(request, text_page(BAD_REQUEST, error.detail), closing=True)

    def _answer(self, request: BaseRequest, path: str) -> Page:
        # Pages of the web could read the status, and throw switches, if their browser is here.
        self._hosts.check(request.raw_headers, required=request.version >= HttpVersion11)
        self._origins.check(request.raw_headers)
        thrown = self._control.answer(request.method, path, peer=peer_of(request))
        if thrown is not None:
            return thrown
        make = self._pages.get(path)
        if make is None:
            return text_page(NOT_FOUND, f"there is: {INDEX}\n{SWITCHES}")
        if request.method not in ("GET", "HEAD"):
            return text_page(NOT_ALLOWED, "only GET and HEAD", allow=b"GET, HEAD")
        return make(request)


def _probe(good: bool, bad: str) -> Page:  # noqa: FBT001  # the one thing a probe says
    return text_page(OK, "ok") if good else text_page(UNAVAILABLE, bad)


def _exposition(metrics: Callable[[str], tuple[bytes, bytes]], request: BaseRequest) -> Page:
    body, content_type = metrics(request.headers.get("Accept", ""))
    return Page(status=OK, content_type=content_type, body=body)
