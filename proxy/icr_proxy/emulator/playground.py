"""Endpoints that no registry has, for what a proxy must carry: big, slow, odd and compressed.

They lie under `/_emulator/` but pass through a proxy like any other: they need a live access
token, meet faults and latency, and are recorded.
"""

import gzip
from collections.abc import Iterator
from typing import Final

from icr_proxy.emulator.api.calls import ApiResponse, Call, Route, json_answer
from icr_proxy.emulator.api_errors import ApiError, invalid

# What `bytes` repeats: every byte value, in a period that is no power of two, so that a chunk
# which is lost or swapped changes the whole.
PATTERN: Final = bytes(range(256)) * 251 + b"icr-proxy"
_MAX_DIGITS: Final = 15
_MAX_SECONDS: Final = 600.0


def pattern(length: int) -> Iterator[bytes]:
    """Produce `length` bytes, the same ones every time, piece by piece."""
    while length > 0:
        piece = PATTERN[:length]
        length -= len(piece)
        yield piece


def echo(call: Call) -> ApiResponse:
    """Say what was received."""
    seen = call.seen
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in seen.headers]
    return json_answer(
        {
            "method": seen.method,
            "target": seen.target,
            "headers": headers,
            "bodyLength": seen.body_length,
            "bodySha256": seen.body_sha256,
            "installationId": seen.installation_id,
        }
    )


def send_bytes(call: Call) -> ApiResponse:
    """Stream any number of bytes, with `Content-Length`, or chunked with `?chunked=1`."""
    text = call.params["n"]
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise invalid("n must be a non-negative integer")
    chunked = call.query.get("chunked", ["0"])[-1] not in ("", "0")
    return ApiResponse(
        headers=(("Content-Type", "application/octet-stream"),),
        stream=pattern(int(text)),
        length=None if chunked else int(text),
    )


def sink(call: Call) -> ApiResponse:
    """Swallow a body of any size and say how long it was."""
    return json_answer({"length": call.seen.body_length, "sha256": call.seen.body_sha256})


def compressed(_call: Call) -> ApiResponse:
    """Send JSON compressed, whatever the request accepts; a proxy must not unpack it."""
    body = gzip.compress(b'{"compressed":true,"filler":"' + b"icr " * 256 + b'"}', mtime=0)
    return ApiResponse(
        body=body,
        headers=(
            ("Content-Type", "application/json; charset=utf-8"),
            ("Content-Encoding", "gzip"),
            ("ETag", '"emulator-gzip-1"'),
            ("Vary", "Accept-Encoding"),
        ),
    )


def redirect(call: Call) -> ApiResponse:
    """Redirect to another host, which a proxy must not follow; with `?to=`, to a path here."""
    path = call.query.get("to", [""])[-1]
    if path:
        hosts = [value for name, value in call.seen.headers if name.lower() == b"host"]
        host = hosts[0].decode("latin-1") if hosts else "localhost"
        if not path.startswith("/"):
            raise invalid("to must be a path")
        return ApiResponse(status=302, headers=(("Location", f"http://{host}{path}"),))
    return ApiResponse(status=302, headers=(("Location", "https://files.example.com/report.pdf"),))


def cookies(_call: Call) -> ApiResponse:
    """Set two cookies in two header lines; a proxy must keep neither and pass both."""
    lines = (("Set-Cookie", "first=1; Path=/"), ("Set-Cookie", "second=2; Path=/; HttpOnly"))
    plain = json_answer({"cookies": 2})
    return ApiResponse(body=plain.body, headers=plain.headers + lines)


def slow(call: Call) -> ApiResponse:
    """Answer after `?seconds=`."""
    text = call.query.get("seconds", ["1"])[-1]
    try:
        seconds = float(text)
    except ValueError as exc:
        raise invalid("seconds must be a number") from exc
    if not 0 <= seconds <= _MAX_SECONDS:
        raise invalid(f"seconds must be between 0 and {_MAX_SECONDS:g}")
    plain = json_answer({"seconds": seconds})
    return ApiResponse(body=plain.body, headers=plain.headers, delay=seconds)


def status(call: Call) -> ApiResponse:
    """Answer with a status of choice, in the shape of an API error where it is one."""
    text = call.params["code"]
    if text not in _STATUSES:
        raise invalid(f"code must be one of {', '.join(sorted(_STATUSES))}")
    if text.startswith("2"):
        return ApiResponse(status=int(text))
    raise ApiError(int(text), "As requested")


# Statuses with a meaning of their own for somebody who passes answers on.
_STATUSES: Final = frozenset(
    str(code)
    for code in (*range(200, 206), 400, 401, *range(403, 411), 418, 422, 429, *range(500, 505))
)

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

ROUTES: Final = (
    Route("ANY", "/_emulator/echo/{tail}", echo, "any"),
    *(Route(method, "/_emulator/echo", echo, "any") for method in _METHODS),
    *(Route(method, "/_emulator/sink", sink, "any") for method in ("POST", "PUT", "PATCH")),
    Route("GET", "/_emulator/bytes/{n}", send_bytes, "any"),
    Route("GET", "/_emulator/gzip", compressed, "any"),
    Route("GET", "/_emulator/redirect", redirect, "any"),
    Route("GET", "/_emulator/cookies", cookies, "any"),
    Route("GET", "/_emulator/slow", slow, "any"),
    Route("GET", "/_emulator/status/{code}", status, "any"),
)
