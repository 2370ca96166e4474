"""The live console on the admin port: its files, its data, and its event stream.

The page is nothing but files. Requests as they pass, facts and explanations stand behind the gate.
"""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.errors import CallerError, CallerTimeoutError, DrainingError, OverloadedError
from icr_proxy.http1.headers import single
from icr_proxy.http1.problem import kind_of
from icr_proxy.server.request import open_body
from icr_proxy.server.response import (
    NOT_ALLOWED,
    OK,
    PHRASES,
    UNAVAILABLE,
    WRITE_SECONDS,
    Page,
    ResponseWriter,
    json_page,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from icr_proxy.admin.console_feed import ConsoleFeed, Subscription
    from icr_proxy.http1.headers import Header
    from icr_proxy.server.request import Request

OK_STATUS = 200
HEARTBEAT_SECONDS = 10.0  # so that both ends notice when the other has vanished
HEARTBEAT = b": still here\n\n"
SLOW_SECONDS = 30.0  # a console that takes nothing for so long is given up


async def send_events(
    request: Request,
    feed: ConsoleFeed,
    *,
    headers: Sequence[tuple[bytes, bytes]],
) -> ResponseWriter:
    """Answer with everything that happens from now on.

    Raises:
        OverloadedError: too many consoles are open.
        DrainingError: the proxy is stopping.
    """
    answer = ResponseWriter(request, timeout=SLOW_SECONDS, closing=lambda: True)
    head = [(b"Content-Type", b"text/event-stream"), *headers]
    if request.method == "HEAD":
        answer.begin(status=OK_STATUS, reason=PHRASES[OK_STATUS], headers=head)
        await answer.end()
        return answer
    with feed.subscription() as (snapshot, subscription):
        answer.begin(status=OK_STATUS, reason=PHRASES[OK_STATUS], headers=head)
        try:
            await answer.write(snapshot)
            while (data := await _next(subscription)) is not None:
                await answer.write(data)
            await answer.end()
        except CallerError:
            answer.abort()  # nobody is there, or nobody reads
    return answer


async def _next(subscription: Subscription) -> bytes | None:
    try:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            return await subscription.next()
    except TimeoutError:
        return HEARTBEAT


FOLDER = Path(__file__).parent / "console"
FILES = {
    "/": ("index.html", b"text/html; charset=utf-8"),
    "/console.css": ("console.css", b"text/css; charset=utf-8"),
    "/console.js": ("console.js", b"text/javascript; charset=utf-8"),
}

# https://www.w3.org/TR/CSP3/: nothing but these three files and answers of this port. Text cannot
# become markup either: of the sinks that would parse it, Trusted Types leave none.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    b" img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none';"
    b" require-trusted-types-for 'script'; trusted-types 'none'"
)
HARDENING = (
    (b"Content-Security-Policy", POLICY),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"X-Frame-Options", b"DENY"),
    (b"Permissions-Policy", b"camera=(), geolocation=(), microphone=(), usb=()"),
)


def file_page(path: str) -> Page:
    """Give one of `FILES`."""
    name, content_type = FILES[path]
    headers = (*HARDENING, (b"Vary", b"Accept")) if path == "/" else HARDENING
    return Page(status=OK, content_type=content_type, body=_read(name), headers=headers)


@cache
def _read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def wants_html(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a browser asks, and not curl or a probe."""
    return b"text/html" in (single(headers, b"accept") or b"").lower()


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
        feed: ConsoleFeed,
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

    async def closer(self, request: Request, path: str) -> Page | ResponseWriter:
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
        answer = ResponseWriter(request, timeout=WRITE_SECONDS, closing=lambda: False)
        body, _ = open_body(request, limits=self._limits, go_on=answer.send_continue)
        parts = bytearray()
        try:
            async with asyncio.timeout(READ_SECONDS):
                while body is not None and (data := await body.read()):
                    parts += data
        except TimeoutError:
            raise CallerTimeoutError("the question did not arrive in time") from None
        return bytes(parts)
