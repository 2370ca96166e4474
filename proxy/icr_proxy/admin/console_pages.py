"""The live console on the admin port: its page for everybody, what it shows for the few.

The page is nothing but files. Requests as they pass, facts and explanations stand behind the gate.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from icr_proxy.admin.livestream import send_events
from icr_proxy.admin.site import FILES, HARDENING, file_page, wants_html
from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.errors import CallerTimeoutError, DrainingError, OverloadedError
from icr_proxy.http1.problem import kind_of
from icr_proxy.server.request import open_body
from icr_proxy.server.response import NOT_ALLOWED, OK, UNAVAILABLE, WRITE_SECONDS, Answer, json_page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from icr_proxy.admin.console_feed import Feed
    from icr_proxy.server.request import Request
    from icr_proxy.server.response import Page

Header = tuple[bytes, bytes]

CLOSE = frozenset({"/events", "/facts", "/explain"})
BODY_MOST = 64 * 1024
READ_SECONDS = 10.0
UNCACHED = ((b"Cache-Control", b"no-store"), (b"X-Content-Type-Options", b"nosniff"))
# A proxy in between (nginx, by this header) must not collect what is meant to be seen at once.
UNBUFFERED = (*UNCACHED, (b"X-Accel-Buffering", b"no"))


class Console:
    """Answers on the paths of the console."""

    def __init__(
        self,
        *,
        feed: Feed,
        facts: Callable[[], Mapping[str, object]],
        explain: Callable[[bytes], Page],
    ) -> None:
        self._feed = feed
        self._facts = facts
        self._explain = explain
        self._limits = LimitsConfig(body=BODY_MOST, body_timeout=READ_SECONDS, replay_buffer=0)

    def file(self, path: str, headers: Sequence[Header]) -> Callable[[object], Page] | None:
        """Give what makes a file of the page; `None` if this is none, or a text is wanted."""
        if path not in FILES or (path == "/" and not wants_html(headers)):
            return None
        return lambda _request: file_page(path)

    async def closer(self, request: Request, path: str) -> Page | Answer:
        """Answer on one of the paths of `CLOSE`, to somebody who may come closer."""
        wanted = ("POST",) if path == "/explain" else ("GET", "HEAD")
        if request.method not in wanted:
            allow = ", ".join(wanted)
            return json_page(NOT_ALLOWED, {"message": f"Only {allow}."}, allow=allow.encode())
        if path == "/explain":
            return self._explain(await self._read(request))
        if path == "/facts":
            return json_page(OK, self._facts())
        try:
            return await send_events(request, self._feed, headers=(*HARDENING, *UNBUFFERED))
        except (OverloadedError, DrainingError) as error:
            sentence = f"{error.detail[:1].upper()}{error.detail[1:]}."
            return json_page(UNAVAILABLE, {"message": sentence, "code": kind_of(error).code})

    async def _read(self, request: Request) -> bytes:
        answer = Answer(request, timeout=WRITE_SECONDS, closing=lambda: False)
        body, _ = open_body(request, limits=self._limits, go_on=answer.go_on)
        parts = bytearray()
        try:
            async with asyncio.timeout(READ_SECONDS):
                while body is not None and (data := await body.read()):
                    parts += data
        except TimeoutError:
            raise CallerTimeoutError("the question did not arrive in time") from None
        return bytes(parts)
