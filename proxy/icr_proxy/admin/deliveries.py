"""The listener on which the registry delivers webhooks: read, have it verified, act, answer.

It is meant to be reached from elsewhere, so that nothing but the signature is believed, and a
sender that is slow or sends too much is cut short.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from icr_proxy.admin.webhooks import read_event
from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.errors import ProxyError
from icr_proxy.http1.problem import kind_of, problem
from icr_proxy.identifiers import TokenKey
from icr_proxy.observability.log import where
from icr_proxy.server.connection import peer_of
from icr_proxy.server.request import receive_body
from icr_proxy.server.response import (
    ACCEPTED,
    NOT_ALLOWED,
    NOT_FOUND,
    WRITE_SECONDS,
    Answer,
    send_page,
    text_page,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.admin.webhooks import Event
    from icr_proxy.observability.log import Log
    from icr_proxy.redaction import Secret
    from icr_proxy.server.request import Request

BODY_MOST = 256 * 1024  # bytes; a delivery with everything in it has a few KiB
READ_SECONDS = 10.0  # for the whole body
SHOWN_MOST = 64  # characters of an event's name: what may come is not known
RESULTS = ("dropped", "noted", "refused")
"""A token was dropped; nothing was to be done; the delivery was not taken."""


class Deliveries:
    """Answers on the port for webhooks."""

    def __init__(
        self,
        *,
        path: str,
        secret: Callable[[], Secret],
        drop: Callable[[TokenKey], bool],
        count: Callable[[str], None],
        log: Log,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """Take deliveries at `path`; `count` is told one of `RESULTS` for each."""
        self._path = path
        self._secret = secret
        self._drop = drop
        self._count = count
        self._log = log
        self._read_seconds = read_seconds
        self._limits = LimitsConfig(body=BODY_MOST, body_timeout=read_seconds, replay_buffer=0)

    async def __call__(self, request: Request) -> Answer:
        """Answer one request."""
        if request.raw_path.partition("?")[0] != self._path:
            return await send_page(request, text_page(NOT_FOUND, "nothing is here"))
        if request.method != "POST":
            page = text_page(NOT_ALLOWED, "deliveries are POSTed", allow=b"POST")
            return await send_page(request, page)
        answer = Answer(request, timeout=WRITE_SECONDS, closing=lambda: False)
        try:
            body = await receive_body(
                request, limits=self._limits, go_on=answer.go_on, seconds=self._read_seconds
            )
            self._take(read_event(request.raw_headers, body, secret=self._secret()))
        except ProxyError as error:
            return await self._refuse(answer, error, peer=peer_of(request).address)
        except Exception as error:  # noqa: BLE001  # the one place: the server would not log it
            self._log.error("webhook.crashed", **where(error))
            await answer.refuse(problem(error, request_id=secrets.token_hex(16)))
            return answer
        return await send_page(request, text_page(ACCEPTED, "accepted"))

    async def refuse(self, request: Request, error: ProxyError) -> Answer:
        """Answer a request that could not even be parsed."""
        answer = Answer(request, timeout=WRITE_SECONDS, closing=lambda: True)
        return await self._refuse(answer, error, peer=peer_of(request).address)

    def _take(self, event: Event) -> None:
        dropped = False
        if event.drops_token and event.installation is not None:
            dropped = self._drop(TokenKey(event.installation))
        self._count("dropped" if dropped else "noted")
        self._log.info(
            "webhook.received",
            webhook_event=event.name[:SHOWN_MOST],
            installation=event.installation,
            dropped=dropped,
        )

    async def _refuse(self, answer: Answer, error: ProxyError, *, peer: str | None) -> Answer:
        self._count("refused")
        self._log.warning(
            "webhook.refused", code=kind_of(error).code, detail=error.detail, peer=peer
        )
        await answer.refuse(problem(error, request_id=secrets.token_hex(16)))
        return answer
