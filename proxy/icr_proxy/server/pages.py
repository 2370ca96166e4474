"""Small answers that are there as a whole, on the ports beside those of callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from icr_proxy.server.response import PHRASES, Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from icr_proxy.server.request import Request

PLAIN = b"text/plain; charset=utf-8"
JSON = b"application/json"
WRITE_SECONDS = 10.0
OK, ACCEPTED, BAD_REQUEST, FORBIDDEN, NOT_FOUND, NOT_ALLOWED = 200, 202, 400, 403, 404, 405
CRASHED, UNAVAILABLE = 500, 503


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered; `allow` lists the methods where another one was used."""

    status: int
    content_type: bytes
    body: bytes
    allow: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


def text_page(status: int, text: str, *, allow: bytes = b"") -> Page:
    """Say something to people, or to a probe."""
    return Page(status=status, content_type=PLAIN, body=text.encode() + b"\n", allow=allow)


def json_page(status: int, members: Mapping[str, object], *, allow: bytes = b"") -> Page:
    """Say something to a program."""
    body = msgspec.json.encode(members)
    return Page(status=status, content_type=JSON, body=body, allow=allow)


async def send_page(request: Request, page: Page, *, closing: bool = False) -> Answer:
    """Answer with a page; `closing` ends the connection with it."""
    answer = Answer(request, timeout=WRITE_SECONDS, closing=lambda: closing)
    headers = [
        (b"Content-Type", page.content_type),
        (b"Content-Length", b"%d" % len(page.body)),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
        *page.headers,
    ]
    if page.allow:
        headers.append((b"Allow", page.allow))
    answer.begin(status=page.status, reason=PHRASES[page.status], headers=headers)
    if request.method == "HEAD":
        await answer.end()
    else:
        await answer.write(page.body)
    return answer
