"""What every client has to get done through the proxy, and how to tell that it was.

A task is data, so that each client, in whatever language, does the same eight things.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.app_fixture import TAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.emulator.server import Emulator
    from tests.support.app_fixture import RunningProxy

UPLOAD = b"credits are money\n" * 10_000


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a client saw; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        data = gzip.decompress(self.body) if self.body[:2] == b"\x1f\x8b" else self.body
        decoded: dict[str, object] = json.loads(data)
        return decoded


@dataclass(frozen=True, kw_only=True)
class Task:
    """One request, with `{org}` and `{retirement}` still to be filled in."""

    name: str
    method: str
    path: str
    check: Callable[[Reply], None]
    body: bytes | None = None
    chunked: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Errand:
    """A task with every blank filled in, ready to be handed to a client."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    chunked: bool


def _is_inventory(reply: Reply) -> None:
    assert reply.status == 200
    assert reply.json()["credits"]


def _is_page_of_projects(reply: Reply) -> None:
    assert reply.status == 200
    projects = reply.json()["projects"]
    assert isinstance(projects, list)
    assert len(projects) == 1


def _is_account(reply: Reply) -> None:
    assert reply.status in (200, 201)
    account = reply.json()["account"]
    assert isinstance(account, dict)
    assert account["name"] == "Zweigstelle Süd"


def _is_deleted_without_body(reply: Reply) -> None:
    assert reply.status == 200
    assert reply.json()["method"] == "DELETE"
    assert reply.json()["bodyLength"] == 0


def _is_pdf(reply: Reply) -> None:
    assert reply.status == 200
    assert reply.body.startswith(b"%PDF-")
    assert reply.body.rstrip().endswith(b"%%EOF")
    assert "filename=" in reply.headers["content-disposition"]


def _is_gzip(reply: Reply) -> None:
    assert reply.status == 200
    assert reply.json()["compressed"] is True


def _is_head(reply: Reply) -> None:
    assert reply.status == 200
    assert int(reply.headers["content-length"]) > 100
    assert reply.body == b""


def _is_whole_upload(reply: Reply) -> None:
    assert reply.status == 200
    assert reply.json() == {
        "length": len(UPLOAD),
        "sha256": hashlib.sha256(UPLOAD).hexdigest(),
    }


JSON = {"Content-Type": "application/json"}
TASKS = (
    Task(name="get", method="GET", path="/organizations/{org}/inventory", check=_is_inventory),
    Task(
        name="get-with-query",
        method="GET",
        path="/projects?limit=1&page=0",
        check=_is_page_of_projects,
    ),
    Task(
        name="post-json",
        method="POST",
        path="/v1/{org}/accounts",
        body=json.dumps({"name": "Zweigstelle Süd"}).encode(),
        headers=JSON,
        check=_is_account,
    ),
    Task(
        name="delete-without-body",
        method="DELETE",
        path="/_emulator/echo/thing",
        check=_is_deleted_without_body,
    ),
    Task(name="pdf", method="GET", path="/retirements/{retirement}/pdf", check=_is_pdf),
    Task(
        name="gzip",
        method="GET",
        path="/_emulator/gzip",
        headers={"Accept-Encoding": "gzip"},
        check=_is_gzip,
    ),
    Task(name="head", method="HEAD", path="/organizations/{org}/inventory", check=_is_head),
    Task(
        name="chunked-upload",
        method="POST",
        path="/_emulator/sink",
        body=UPLOAD,
        chunked=True,
        check=_is_whole_upload,
    ),
)


def prepare(task: Task, *, proxy: RunningProxy, emulator: Emulator, retirement: str) -> Errand:
    """Fill in the blanks for the first installation of the emulator."""
    installation = next(iter(emulator.world.installations.values()))
    path = task.path.format(org=installation.organization.id, retirement=retirement)
    return Errand(
        method=task.method,
        url=proxy.url + path,
        headers={TAG: installation.id, **task.headers},
        body=task.body,
        chunked=task.chunked,
    )
