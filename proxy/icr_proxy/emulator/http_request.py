"""Reading a request off the wire without holding it.

Every body is counted and hashed as it streams by; at most `KEPT` bytes are kept, for JSON.
"""

from hashlib import sha256
from typing import Final

from aiohttp import ClientError, http_exceptions, web

from icr_proxy.emulator.api_errors import ApiError
from icr_proxy.emulator.traffic import SeenRequest

KEPT: Final = 1024 * 1024

# What reading raises if the peer leaves or breaks the framing in the middle of a body.
BROKEN: Final = (ConnectionError, ClientError, http_exceptions.HttpProcessingError)


def record_head(request: web.BaseRequest, *, at: float) -> SeenRequest:
    """Note what has arrived so far."""
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    return SeenRequest(
        method=request.method,
        target=request.raw_path,
        headers=list(request.raw_headers),
        at=at,
        peer_port=peer[1] if peer else 0,
    )


async def read_body(request: web.BaseRequest, *, seen: SeenRequest) -> bytes:
    """Read the whole body; return it if it is small, else nothing.

    Raises one of `BROKEN` if it does not arrive whole: then the API must not act.
    """
    await _send_continue(request)
    digest = sha256()
    kept = bytearray()
    async for chunk in request.content.iter_any():
        digest.update(chunk)
        seen.body_length += len(chunk)
        if seen.body_length <= KEPT:
            kept += chunk
        else:
            kept.clear()
    seen.body_sha256 = digest.hexdigest()
    seen.body_complete = True
    return bytes(kept)


def check_size(seen: SeenRequest, *, encoding: str) -> None:
    """Refuse a JSON body that was not kept, or that would have to be unpacked first (A)."""
    if seen.body_length > KEPT:
        raise ApiError(413, "request entity too large")
    if encoding not in ("", "identity"):
        raise ApiError(415, f'unsupported content encoding "{encoding}"')


async def _send_continue(request: web.BaseRequest) -> None:
    # aiohttp's low-level server leaves `Expect` to us.
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
