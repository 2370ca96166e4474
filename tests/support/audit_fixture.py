"""Stages for the tests of the audit trail: outcomes, journals, small trails on disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from icr_proxy.audit.chain import seal_all
from icr_proxy.audit.records import request_of
from icr_proxy.audit.segments import list_segments
from icr_proxy.audit.writer import TrailWriter
from icr_proxy.config.models import AuditConfig
from icr_proxy.observability.outcome import Journal, Outcome, continue_trace
from icr_proxy.query_redaction import QueryRedaction
from icr_proxy.redaction import Secret
from tests.support.app_fixture import Clock

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.audit.chain import ChainHead, MacKey
    from icr_proxy.audit.records import RequestRecord

KEY = Secret("k" * 64)


def journal_of(**changed: Any) -> Journal:
    """Give what is known of a retirement before it is sent."""
    facts: dict[str, Any] = {
        "request_id": "r-1",
        "trace": continue_trace(None, digits="7" * 64),
        "listener": "127.0.0.1:8080",
        "peer": "10.0.0.7",
        "method": "POST",
        "started_at": 1_790_000_000.0,
        "began": 0.0,
        "path": "/v1/retire",
        "target": "/v1/retire",
        "operation": "v1.retire",
        "changes_state": True,
        "installation": "inst-1",
        "organization": "org-1",
        "rule": "default",
        "attempts": 1,
        "status": 200,
        "origin": "upstream",
    }
    return Journal(**facts | changed)


def outcome_of(**changed: Any) -> Outcome:
    """Give how it ended, half a second later."""
    return journal_of(**changed).close(at=0.5)


def record_of(**changed: Any) -> RequestRecord:
    """Give the record of that."""
    return request_of(outcome_of(**changed), redact=QueryRedaction(()))


def read_of(number: int) -> RequestRecord:
    """Give the record of a read that can be told from others."""
    return record_of(
        request_id=f"read-{number}",
        method="GET",
        target=f"/projects?page={number}",
        operation="projects.list",
        changes_state=False,
    )


def writer_in(
    directory: Path, *, key: Secret | None = KEY, now: Clock | None = None, **settings: Any
) -> TrailWriter:
    """Open a trail there."""
    config = AuditConfig(directory=directory, **settings)
    return TrailWriter(directory, config=config, key=key, now=now or Clock(1_790_000_000.0))


def records_in(directory: Path) -> list[dict[str, Any]]:
    """Read all records of a trail, oldest first."""
    return [
        json.loads(line)
        for path in list_segments(directory)
        for line in path.read_bytes().splitlines()
    ]


def seal(body: bytes, *, after: ChainHead, mac_key: MacKey | None) -> tuple[bytes, ChainHead]:
    """Make the line of one record and the head after it."""
    (line,), head = seal_all((body,), after=after, mac_key=mac_key)
    return line, head


def kinds_in(directory: Path) -> list[str]:
    """Say which records there are."""
    return [record["kind"] for record in records_in(directory)]


def cut_last_line(path: Path, *, lines: int = 1) -> None:
    """Take whole records off the end of a file, as if they had never been written."""
    kept = path.read_bytes().splitlines(keepends=True)[:-lines]
    path.write_bytes(b"".join(kept))
