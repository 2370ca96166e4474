"""Findings of the steps, what later steps know from them, and how they are shown."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from icr_proxy.net.addresses import split_address

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from icr_proxy.config.models import Config
    from icr_proxy.credentials.access_token import AccessToken
    from icr_proxy.credentials.installations import ListedInstallation
    from icr_proxy.doctor.session import AppSession

State = Literal["ok", "warn", "fail", "skip"]

COLOURS: dict[State, str] = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}
STATE_WIDTH = 6
NAME_WIDTH = 15
ARROW = "→ "


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """One row: what was looked at, how it is, and what to do if it is not well."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def lines(finding: DoctorFinding, *, width: int | None) -> list[str]:
    """Write a finding without its state, which may be coloured; wrapped if there is a width."""
    margin = " " * (STATE_WIDTH + NAME_WIDTH + 2)
    texts = finding.detail.splitlines() or [""]
    if finding.remedy:
        texts.append(ARROW + finding.remedy)
    written: list[str] = []
    for text in texts:
        hang = " " * len(ARROW) if text.startswith(ARROW) else ""
        room = None if width is None else max(width - len(margin), 30)
        written += [text] if room is None else _wrapped(text, room=room, hang=hang)
    first, *rest = written
    return [f"{finding.name:<{NAME_WIDTH}} {first}", *(margin + text for text in rest)]


def _wrapped(text: str, *, room: int, hang: str) -> list[str]:
    # A fingerprint or an ID that is cut in two cannot be copied.
    wrapped = textwrap.wrap(
        text, room, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
    )
    return wrapped or [text]


def summary(findings: Sequence[DoctorFinding]) -> str:
    """Count: `11 ok, 1 warning, 0 failures`."""
    counts = Counter(each.state for each in findings)
    parts = [
        f"{counts['ok']} ok",
        _many(counts["warn"], "warning"),
        _many(counts["fail"], "failure"),
    ]
    if counts["skip"]:
        parts.append(f"{counts['skip']} skipped")
    return ", ".join(parts)


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def failed(findings: Sequence[DoctorFinding]) -> bool:
    """Tell whether something does not work."""
    return any(each.state == "fail" for each in findings)


def as_json(findings: Sequence[DoctorFinding]) -> str:
    """Write everything as one document."""
    counts = Counter(each.state for each in findings)
    document = {
        "ok": not failed(findings),
        "counts": {state: counts[state] for state in COLOURS},
        "findings": [asdict(each) for each in findings],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


@dataclass(slots=True, kw_only=True)
class Case:
    """One examination."""

    session: AppSession
    environ: Mapping[str, str]
    installation: str | None = None
    """The only installation to try, if one was named."""
    everyone: bool = False
    """Whether all installations are tried, however many."""
    listed: list[ListedInstallation] = field(default_factory=list)
    minted: dict[str, AccessToken] = field(default_factory=dict)
    is_bad_request: bool = False
    """Whether the API took the app's own calls for bad requests, as of an unknown version."""

    @property
    def config(self) -> Config:
        """The configuration under examination."""
        return self.session.config

    @property
    def host(self) -> str:
        """The API's host."""
        return urlsplit(self.config.upstream.base_url).hostname or ""

    @property
    def port(self) -> int:
        """The API's port."""
        url = urlsplit(self.config.upstream.base_url)
        return url.port or (443 if url.scheme == "https" else 80)

    @property
    def place(self) -> tuple[str, int]:
        """Where to connect: the same, unless `upstream.address` says otherwise."""
        address = self.config.upstream.address
        if address is None:
            return self.host, self.port
        host, port = split_address(address)
        return host, port or self.port

    @property
    def is_encrypted(self) -> bool:
        """Whether the API is asked over TLS."""
        return urlsplit(self.config.upstream.base_url).scheme == "https"
