"""The second listener: probes, metrics, status. It answers by itself and forwards nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.answers import PHRASES, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.web import BaseRequest

    from proxy.errors import ProxyError

PLAIN = b"text/plain; charset=utf-8"
JSON = b"application/json"
OK, BAD_REQUEST, NOT_FOUND, NOT_ALLOWED, UNAVAILABLE = 200, 400, 404, 405, 503
WRITE_SECONDS = 10.0
INDEX = b"/healthz /startupz /readyz /metrics /status\n"


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered."""

    status: int
    content_type: bytes
    body: bytes


class Admin:
    """Answers on the admin port. What it shows comes in as functions."""

    def __init__(
        self,
        *,
        started: Callable[[], bool],
        ready: Callable[[], bool],
        metrics: Callable[[], bytes],
        status: Callable[[], Mapping[str, object]],
    ) -> None:
        self._pages: dict[str, Callable[[], Page]] = {
            "/": lambda: Page(OK, PLAIN, INDEX),
            # Alive means that the event loop turns, which it shows by answering.
            "/healthz": lambda: Page(OK, PLAIN, b"ok\n"),
            "/startupz": lambda: _probe(started(), b"starting\n"),
            # Ready without needing the API: a sidecar that waits for the API would take its
            # application down with it.
            "/readyz": lambda: _probe(ready(), b"not ready\n"),
            "/metrics": lambda: Page(OK, CONTENT_TYPE_LATEST.encode(), metrics()),
            "/status": lambda: Page(OK, JSON, msgspec.json.encode(status())),
        }

    async def __call__(self, request: BaseRequest) -> Answer:
        """Answer one request."""
        make = self._pages.get(request.raw_path.partition("?")[0])
        if make is None:
            page = Page(NOT_FOUND, PLAIN, b"there is: " + INDEX)
        elif request.method not in ("GET", "HEAD"):
            page = Page(NOT_ALLOWED, PLAIN, b"only GET and HEAD\n")
        else:
            page = make()
        return await self._send(request, page)

    async def refuse(self, request: BaseRequest, error: ProxyError) -> Answer:
        """Answer a request that could not even be parsed."""
        return await self._send(
            request, Page(BAD_REQUEST, PLAIN, error.detail.encode() + b"\n"), closing=True
        )

    async def _send(self, request: BaseRequest, page: Page, *, closing: bool = False) -> Answer:
        answer = Answer(request, timeout=WRITE_SECONDS, closing=lambda: closing)
        headers = [
            (b"Content-Type", page.content_type),
            (b"Content-Length", b"%d" % len(page.body)),
            (b"Cache-Control", b"no-store"),
            (b"X-Content-Type-Options", b"nosniff"),
        ]
        if page.status == NOT_ALLOWED:
            headers.append((b"Allow", b"GET, HEAD"))
        answer.begin(status=page.status, reason=PHRASES[page.status], headers=headers)
        if request.method == "HEAD":
            await answer.end()
        else:
            await answer.write(page.body)
        return answer


def _probe(good: bool, bad: bytes) -> Page:  # noqa: FBT001  # the one thing a probe says
    return Page(OK, PLAIN, b"ok\n") if good else Page(UNAVAILABLE, PLAIN, bad)
