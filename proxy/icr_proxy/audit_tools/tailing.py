"""Follows a trail while it is written, from file to file."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any, BinaryIO

from icr_proxy.audit.segments import list_segments
from icr_proxy.audit_tools.query import LINE_MOST, parse_record
from icr_proxy.files import open_to_read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Entry = dict[str, Any]

FILES_LOOKED_BACK = 2  # for the newest records; all of them may be gigabytes
CALLERS_FAULT, OURS = 400, 500
PLAIN, GREEN, YELLOW, RED, DIM = "", "32", "33", "31", "2"


class Tail:
    """Reads what has been added since it was last asked; a torn record waits for its rest."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._name = ""
        self._rest = b""

    def start(self, count: int) -> list[Entry]:
        """Give the newest records, `count` of them, and go on from there."""
        earlier = list_segments(self._directory)[:-FILES_LOOKED_BACK]
        if earlier:
            self._name = earlier[-1].name
        newest: deque[Entry] = deque(maxlen=count)
        newest.extend(self.read())
        return list(newest)

    def read(self) -> Iterator[Entry]:
        """Give what is new."""
        while True:
            # Looked for first: whatever the file before got, it got before this one was there.
            later = self._later()
            if self._file is not None:
                yield from self._lines(self._file)
            if later is None:
                return
            self.close()
            self._name, self._rest = later.name, b""
            self._file = open_to_read(later)

    def _later(self) -> Path | None:
        files = list_segments(self._directory)
        return next((path for path in files if path.name > self._name), None)

    def _lines(self, file: BinaryIO) -> Iterator[Entry]:
        while data := file.read(1 << 20):
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > LINE_MOST:  # no file of a trail
                self._rest = b""
                file.seek(0, os.SEEK_END)
            for line in lines:
                record = parse_record(line)
                if record is not None:  # `audit verify` is there to say what is wrong with it
                    yield record

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def show(record: Entry, *, colours: bool) -> str:
    """Write a record as one line for a person."""
    kind = record.get("kind", "?")
    if kind in ("request", "intent"):
        text, colour = _request(record), _colour(record)
    else:
        hidden = {"seq", "prev", "kind", "hash", "mac", "time"}
        facts = (f"{name}={value}" for name, value in record.items() if name not in hidden)
        text, colour = f"{kind:<8} {' '.join(facts)}", DIM
    line = f"{record.get('seq', '?'):>8} {record.get('time', '')!s:.23} {text}"
    line = "".join(char if char.isprintable() else "\ufffd" for char in line)
    return f"\x1b[{colour}m{line}\x1b[0m" if colours and colour else line


def _request(record: Entry) -> str:
    query = record.get("query")
    target = f"{record.get('path', '')}{'' if query is None else f'?{query}'}"
    ended = record.get("status", "…")
    code = record.get("code")
    return (
        f"{record['kind']:<8} {ended} {record.get('method')} {target}"
        f" {record.get('operation')} inst={record.get('installation')}"
        f" caller={record.get('caller') or record.get('peer')} id={record.get('request_id')}"
        f"{f' code={code}' if code else ''}"
    )


def _colour(record: Entry) -> str:
    status = record.get("status", 0)
    if status >= OURS:
        return RED
    if status >= CALLERS_FAULT:
        return YELLOW
    return GREEN if record.get("changes_state") else PLAIN
