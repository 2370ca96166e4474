"""HTTP responses of the emulator, and the injection of faults."""

import asyncio
from typing import Final

from aiohttp import web

from icr_proxy.emulator.api.calls import ApiResponse, json_answer
from icr_proxy.emulator.api_errors import error_body
from icr_proxy.emulator.settings import Fault

_SERVER: Final = "icr-emulator"
_JSON: Final = "application/json; charset=utf-8"
_FIRST_ERROR: Final = 400


def respond(answer: ApiResponse, *, date: str) -> web.StreamResponse:
    """Turn an answer without a stream into a response."""
    response = web.Response(status=answer.status, body=answer.body or None)
    _set_headers(response, answer=answer, date=date)
    return response


async def send_stream(
    request: web.BaseRequest, *, answer: ApiResponse, date: str
) -> web.StreamResponse:
    """Send an answer whose body is produced piece by piece, with back-pressure."""
    response = web.StreamResponse(status=answer.status)
    _set_headers(response, answer=answer, date=date)
    if answer.length is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = answer.length
    try:
        await response.prepare(request)
        if request.method != "HEAD":
            for piece in answer.stream or ():
                await response.write(piece)
        await response.write_eof()
    except ConnectionError:
        disconnect(request)  # the client has left; nobody is there to be told
    return response


def disconnect(request: web.BaseRequest, *, flush: bool = False) -> None:
    """Close the connection; with `flush` only after the written bytes are sent."""
    transport = request.transport
    if transport is not None:
        (transport.close if flush else transport.abort)()


async def pause(seconds: float | None, *, closing: asyncio.Event) -> None:
    """Wait, but not beyond the end of the emulator; None waits for that end."""
    try:
        await asyncio.wait_for(closing.wait(), seconds)
    except TimeoutError:
        return


def _set_headers(response: web.StreamResponse, *, answer: ApiResponse, date: str) -> None:
    response.headers["Server"] = _SERVER
    response.headers["Date"] = date
    for name, value in answer.headers:
        response.headers.add(name, value)


async def inject_fault(
    fault: Fault, *, request: web.BaseRequest, date: str, closing: asyncio.Event
) -> web.StreamResponse | None:
    """Inject a fault; None means that the call goes on."""
    extra = tuple(fault.headers.items())
    headers = (("Content-Type", _JSON), *extra)
    match fault.kind:
        case "status":
            return respond(_status_response(fault), date=date)
        case "malformed":
            return respond(ApiResponse(body=b'{"token": "crs_', headers=headers), date=date)
        case "empty":
            return respond(ApiResponse(headers=extra), date=date)
        case "truncated":
            half = b'{"credits": ['
            answer = ApiResponse(headers=headers, stream=(half,), length=2 * len(half))
            response = await send_stream(request, answer=answer, date=date)
            disconnect(request, flush=True)
            return response
        case "slow":
            await pause(1.0 if fault.seconds is None else fault.seconds, closing=closing)
            return None
        case _:
            if fault.kind == "hang":
                await pause(fault.seconds, closing=closing)
            disconnect(request)
            return respond(ApiResponse(status=503), date=date)  # never sent


def _status_response(fault: Fault) -> ApiResponse:
    extra = tuple(fault.headers.items())
    if fault.body is None:
        is_error = fault.status >= _FIRST_ERROR
        payload = error_body(fault.status, "Ordered fault") if is_error else {}
        plain = json_answer(payload, status=fault.status)
        return ApiResponse(status=fault.status, body=plain.body, headers=plain.headers + extra)
    body = fault.body.encode() if isinstance(fault.body, str) else fault.body
    if not any(name.lower() == "content-type" for name, _ in extra):
        extra = (("Content-Type", _JSON), *extra)
    return ApiResponse(status=fault.status, body=body, headers=extra)
