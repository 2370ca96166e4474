"""Four Python HTTP clients, each used as its documentation shows."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import aiohttp
import httpx
import requests

from tests.support.clients.tasks import Errand, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PIECE = 7919  # bytes; no multiple of anything


def pieces(body: bytes) -> Iterator[bytes]:
    """Cut a body into pieces: what makes a client send it chunked."""
    for at in range(0, len(body), PIECE):
        yield body[at : at + PIECE]


def with_requests(errand: Errand) -> Reply:
    body = pieces(errand.body) if errand.body is not None and errand.chunked else errand.body
    with requests.Session() as session:
        answer = session.request(
            errand.method, errand.url, headers=errand.headers, data=body, timeout=30
        )
        return _reply(answer.status_code, answer.headers.items(), answer.content)


def with_httpx(errand: Errand) -> Reply:
    body = pieces(errand.body) if errand.body is not None and errand.chunked else errand.body
    with httpx.Client(timeout=30) as client:
        answer = client.request(errand.method, errand.url, headers=errand.headers, content=body)
        return _reply(answer.status_code, answer.headers.items(), answer.content)


def with_urllib(errand: Errand) -> Reply:
    body = pieces(errand.body) if errand.body is not None and errand.chunked else errand.body
    request = urllib.request.Request(
        errand.url, data=body, headers=errand.headers, method=errand.method
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert isinstance(answer, http.client.HTTPResponse)
        return _reply(answer.status, answer.getheaders(), answer.read())


async def with_aiohttp(errand: Errand) -> Reply:
    async def stream(body: bytes) -> AsyncIterator[bytes]:
        for piece in pieces(body):
            yield piece

    chunked = errand.body is not None and errand.chunked
    body = stream(errand.body or b"") if chunked else errand.body
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session,
        session.request(errand.method, errand.url, headers=errand.headers, data=body) as answer,
    ):
        return _reply(answer.status, answer.headers.items(), await answer.read())


def _reply(status: int, headers: object, body: bytes) -> Reply:
    names = {str(k).lower(): str(v) for k, v in headers}  # type: ignore[attr-defined]  # pairs
    return Reply(status=status, headers=names, body=body)
