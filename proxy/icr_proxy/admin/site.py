"""The console's page as files, sent with headers under which it can load nothing else."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from icr_proxy.http1.headers import single
from icr_proxy.server.response import OK, Page

if TYPE_CHECKING:
    from collections.abc import Sequence

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
