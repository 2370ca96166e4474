"""Writes requests as HAR 1.2, which browsers' developer tools and many others open; pure.

http://www.softwareishard.com/blog/har-12-spec/. The trail has neither headers nor bodies, so the
archive has none. Values of the query and addresses are hidden unless one asks for them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from icr_proxy import __version__
from icr_proxy.query_redaction import HIDDEN, QueryRedaction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from icr_proxy.audit_tools.query import Entry

_HIDE_ALL = QueryRedaction(None)


def as_har(records: Iterable[Entry], *, base_url: str, redact: bool) -> dict[str, Any]:
    """Give the archive."""
    return {
        "log": {
            "version": "1.2",
            "creator": {"name": "icr-proxy", "version": __version__},
            "entries": [_entry(record, base_url=base_url, redact=redact) for record in records],
        }
    }


def _entry(record: Entry, *, base_url: str, redact: bool) -> dict[str, Any]:
    duration = float(record.get("duration_ms", 0.0))
    wait = float(record.get("first_byte_ms") or 0.0)
    blocked = min(float(record.get("token_wait_ms", 0.0)), duration)
    entry: dict[str, Any] = {
        "startedDateTime": _start(str(record.get("time")), duration),
        "time": duration,
        "request": _request(record, base_url=base_url, redact=redact),
        "response": _response(record),
        "cache": {},
        "timings": {
            "blocked": blocked,
            "send": 0,
            "wait": min(wait, duration - blocked),
            "receive": max(0.0, duration - blocked - wait),
        },
        "comment": (
            f"record {record.get('seq')}, request {record.get('request_id')}, operation"
            f" {record.get('operation')}, installation {record.get('installation')}"
        ),
    }
    if not redact:
        entry["_peer"], entry["_caller"] = record.get("peer"), record.get("caller")
    return entry


def _start(time: str, duration: float) -> str:
    try:
        began = datetime.fromisoformat(time) - timedelta(milliseconds=duration)
    except (ValueError, OverflowError):  # no time that the proxy wrote
        return time
    return began.isoformat(timespec="milliseconds")


def _request(record: Entry, *, base_url: str, redact: bool) -> dict[str, Any]:
    query = record.get("query")
    if query is not None and redact:
        query = _HIDE_ALL(str(query))
    pairs = parse_qsl(query or "", keep_blank_values=True)
    return {
        "method": record.get("method"),
        "url": f"{base_url}{record.get('path', '')}{'' if query is None else f'?{query}'}",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [],
        "queryString": [{"name": name, "value": value} for name, value in pairs],
        "headersSize": -1,
        "bodySize": record.get("bytes_in", 0),
    }


def _response(record: Entry) -> dict[str, Any]:
    size = record.get("bytes_out", 0)
    return {
        "status": record.get("status", 0),
        "statusText": record.get("code") or "",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [],
        "content": {"size": size, "mimeType": ""},
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": size,
    }


def hidden(record: Entry) -> Entry:
    """Give a record less what `as_har` hides, for other forms of export."""
    shown = dict(record)
    if shown.get("query") is not None:
        shown["query"] = _HIDE_ALL(str(shown["query"]))
    for name in ("peer", "caller"):
        if shown.get(name) is not None:
            shown[name] = HIDDEN
    return shown
