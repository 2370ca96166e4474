"""What the webhook answers over HTTP: verdicts, health, and its authority's certificate."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import nullcontext
from typing import TYPE_CHECKING

from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.errors import ProxyError
from icr_proxy.http1.problem import kind_of, problem
from icr_proxy.injector.admission_review import read_request, write_verdict
from icr_proxy.injector.decision import decide
from icr_proxy.observability.log import where
from icr_proxy.server.connection import peer_of
from icr_proxy.server.request import receive_body
from icr_proxy.server.response import (
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    UNAVAILABLE,
    WRITE_SECONDS,
    Page,
    ResponseWriter,
    json_page,
    send_page,
    text_page,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from icr_proxy.injector.admission_review import AdmissionRequest, AdmissionVerdict
    from icr_proxy.injector.sidecar import Defaults
    from icr_proxy.observability.log import Log
    from icr_proxy.server.request import Request as HttpRequest

MUTATE = "/mutate"
BODY_MOST = 3 << 20  # bytes; what the API server itself takes of a request
READ_SECONDS = 10.0  # which is also the longest that it usually waits for a webhook
PEM = b"application/pem-certificate-chain"
LIMITS = LimitsConfig(
    body=BODY_MOST,
    body_timeout=READ_SECONDS,
    replay_buffer=0,
    connections=256,  # several API servers, each with many pods at once
    idle_timeout=120.0,  # those leave after 90 s (Go), so that they never meet a closing connection
)
# Hardly a pod is as long as the first; of longer ones few are read at once, to stay in memory.
SMALL, LONG_ONES = 256 << 10, 8
SHOWN_MOST = 253  # characters, as of a name in Kubernetes; whoever reaches the port may send longer


class AdmissionWebhook:
    """Answers the Kubernetes API server, and probes."""

    def __init__(
        self, defaults: Defaults, *, pem: bytes | None, ready: Callable[[], bool], log: Log
    ) -> None:
        """`pem` is the certificate of our own authority, if there is one."""
        self._defaults = defaults
        self._pem = pem
        self._ready = ready
        self._log = log
        self._long_ones = asyncio.Semaphore(LONG_ONES)

    async def __call__(self, request: HttpRequest) -> ResponseWriter:
        """Answer one request."""
        path = request.raw_path.partition("?")[0]
        if path == MUTATE and request.method == "POST":
            return await self._review(request)
        return await send_page(request, self._page(path, request.method))

    async def respond_error(self, request: HttpRequest, error: ProxyError) -> ResponseWriter:
        """Answer a request that could not even be parsed."""
        answer = ResponseWriter(request, timeout=WRITE_SECONDS, closing=lambda: True)
        return await self._refuse(answer, error, peer=peer_of(request).address)

    def _page(self, path: str, method: str) -> Page:
        if path == MUTATE:
            return text_page(NOT_ALLOWED, "reviews are POSTed", allow=b"POST")
        page = self._pages().get(path)
        if page is None:
            return text_page(NOT_FOUND, "nothing is here")
        if method not in ("GET", "HEAD"):
            return text_page(NOT_ALLOWED, "this is only read", allow=b"GET, HEAD")
        return page

    def _pages(self) -> dict[str, Page]:
        ready = text_page(OK, "ready") if self._ready() else text_page(UNAVAILABLE, "not yet")
        pages = {"/healthz": text_page(OK, "ok"), "/readyz": ready}
        if self._pem is not None:
            pages["/ca.pem"] = Page(status=OK, content_type=PEM, body=self._pem)
        return pages

    async def _review(self, request: HttpRequest) -> ResponseWriter:
        answer = ResponseWriter(request, timeout=WRITE_SECONDS, closing=lambda: False)
        try:
            async with self._room(request.content_length):
                body = await receive_body(
                    request, limits=LIMITS, go_on=answer.send_continue, seconds=READ_SECONDS
                )
                asked = read_request(body)
                verdict = decide(asked, self._defaults)
        except ProxyError as error:
            return await self._refuse(answer, error, peer=peer_of(request).address)
        except Exception as error:  # noqa: BLE001  # the one place: the server would not log it
            self._log.error("injector.crashed", **where(error))
            await answer.send_problem(problem(error, request_id=secrets.token_hex(16)))
            return answer
        self._tell(asked, verdict)
        return await send_page(request, json_page(OK, write_verdict(verdict, uid=asked.uid)))

    def _room(self, length: int | None) -> AbstractAsyncContextManager[object]:
        """Wait for room in memory, if it takes much."""
        return nullcontext() if length is not None and length <= SMALL else self._long_ones

    def _tell(self, asked: AdmissionRequest, verdict: AdmissionVerdict) -> None:
        say = self._log.warning if verdict.result in ("refused", "passed") else self._log.info
        say(
            "injector.reviewed",
            uid=asked.uid[:SHOWN_MOST],
            namespace=asked.namespace[:SHOWN_MOST],
            pod=verdict.pod[:SHOWN_MOST],
            result=verdict.result,
            detail=verdict.message,
            warnings=list(verdict.warnings),
            dry_run=bool(asked.dry_run),
        )

    async def _refuse(
        self, answer: ResponseWriter, error: ProxyError, *, peer: str | None
    ) -> ResponseWriter:
        code = kind_of(error).code
        self._log.warning("injector.bad_request", code=code, detail=error.detail, peer=peer)
        await answer.send_problem(problem(error, request_id=secrets.token_hex(16)))
        return answer
