"""Small stand-ins that several tests share."""

from __future__ import annotations

from typing import Any

from icr_proxy.observability.outcome import Outcome, Trace


class Heard:
    """A `Log` that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def debug(self, event: str, **fields: object) -> None:
        self.lines.append(("debug", event, fields))

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append(("error", event, fields))


def outcome(**changed: Any) -> Outcome:
    """Give the record of a plain read that went well, but for what is `changed`."""
    facts: dict[str, Any] = {
        "request_id": "request",
        "trace": Trace(
            id="trace", parent=None, span="s", upstream_span="u", flags="00", sampled=False
        ),
        "listener": "127.0.0.1:8080",
        "peer": "127.0.0.1",
        "method": "GET",
        "path": "/projects",
        "operation": "projects.list",
        "changes_state": False,
        "caller": None,
        "installation": "in-1",
        "would_refuse": None,
        "token": "0123456789ab",
        "token_generation": 1,
        "attempts": 1,
        "status": 200,
        "origin": "upstream",
        "code": None,
        "bytes_in": 0,
        "bytes_out": 0,
        "started_at": 0.0,
        "began": 0.0,
        "duration": 0.02,
        "token_wait": 0.001,
        "first_byte": 0.01,
        "sent_after": 0.002,
    }
    return Outcome(**facts | changed)
