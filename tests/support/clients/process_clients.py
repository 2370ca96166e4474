"""Four HTTP clients that are programs of their own, each called as its manual shows."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.clients.tasks import Errand, Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HERE = Path(__file__).parent
# Where `.ci/run` has put the npm packages that are not part of Node.
NODE_MODULES = os.environ.get("ICR_TEST_NODE_MODULES", "")


@dataclass(frozen=True)
class ProcessClient:
    """A program: how it is called, and what must be there."""

    name: str
    run: Callable[[Errand, Path], Awaitable[Reply]]
    is_there: Callable[[], bool]
    cannot: frozenset[str] = frozenset()
    """Tasks the program has no way to do, by name."""


async def with_curl(errand: Errand, folder: Path) -> Reply:
    head, body = folder / "head", folder / "body"
    words = ["curl", "-sS", "-D", str(head), "-o", str(body), "--max-time", "30"]
    words += ["-I"] if errand.method == "HEAD" else ["-X", errand.method]
    for name, value in errand.headers.items():
        words += ["-H", f"{name}: {value}"]
    if errand.body is not None:
        words += ["--data-binary", "@-"]
        words += ["-H", "Transfer-Encoding: chunked"] if errand.chunked else []
    await _run([*words, errand.url], errand.body)
    content = body.read_bytes() if errand.method != "HEAD" and body.exists() else b""
    return _from_head(head.read_text("latin-1"), content)


async def with_wget(errand: Errand, folder: Path) -> Reply:
    body = folder / "body"
    words = ["wget", "-q", "-S", "-O", str(body), "--tries=1", "--timeout=30"]
    words += ["--method", errand.method, "--content-on-error"]
    for name, value in errand.headers.items():
        words += ["--header", f"{name}: {value}"]
    if errand.body is not None:
        (folder / "upload").write_bytes(errand.body)
        words += ["--body-file", str(folder / "upload")]
    _, head = await _run([*words, errand.url], None)
    lines = [line.strip() for line in head.decode("latin-1").splitlines()]
    return _from_head("\r\n".join(lines), body.read_bytes())


async def with_fetch(errand: Errand, folder: Path) -> Reply:
    return await _node("fetch_client.mjs", errand, folder)


async def with_axios(errand: Errand, folder: Path) -> Reply:
    return await _node("axios_client.cjs", errand, folder)


CLIENTS = (
    ProcessClient("curl", with_curl, lambda: shutil.which("curl") is not None),
    ProcessClient(
        "wget",
        with_wget,
        lambda: shutil.which("wget") is not None,
        cannot=frozenset({"chunked-upload"}),
    ),
    ProcessClient("fetch", with_fetch, lambda: shutil.which("node") is not None),
    ProcessClient(
        "axios",
        with_axios,
        lambda: shutil.which("node") is not None and (Path(NODE_MODULES) / "axios").is_dir(),
    ),
)


async def _node(script: str, errand: Errand, folder: Path) -> Reply:
    (folder / "upload").write_bytes(errand.body or b"")
    told = {
        "method": errand.method,
        "url": errand.url,
        "headers": errand.headers,
        "upload": str(folder / "upload") if errand.body is not None else None,
        "chunked": errand.chunked,
        "into": str(folder / "body"),
    }
    out, _ = await _run(["node", str(HERE / script), json.dumps(told)], None)
    said = json.loads(out)
    body = (folder / "body").read_bytes()
    return Reply(status=said["status"], headers=said["headers"], body=body)


async def _run(words: list[str], given: bytes | None) -> tuple[bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": NODE_MODULES, "no_proxy": "127.0.0.1"},
    )
    out, err = await process.communicate(given)
    assert process.returncode == 0, (words[0], err.decode("latin-1"))
    return out, err


def _from_head(text: str, body: bytes) -> Reply:
    """Read the last head of a transcript; interim answers come before it."""
    blocks = text.replace("\r\n", "\n").strip().split("HTTP/1.1 ")
    line, *rest = blocks[-1].strip().splitlines()
    pairs = (x.partition(":") for x in rest if ":" in x)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Reply(status=int(line.split()[0]), headers=headers, body=body)
