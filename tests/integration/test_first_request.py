"""A reader types what README.md and docs/get-started.md say, in that order, and it works."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.program import environment

if TYPE_CHECKING:
    from icr_proxy.emulator.server import Emulator

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
GUARD_SECONDS = 30
RUN_ELSEWHERE = {
    "make demo": "by .ci/run",
    "make test": "by .ci/run",
    "pipx install .": "by tests/external/packaging/check_packaging.py",
    "icr-proxy demo --keep": "by tests/integration/test_demo.py",
}


def blocks(document: Path, language: str) -> list[str]:
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def commands(document: Path) -> list[str]:
    """Give the lines that a reader types, without the remarks behind them."""
    lines = "".join(blocks(document, "")).splitlines()
    typed = [re.sub(r"\s+#.*", "", line) for line in lines]
    return [line for line in typed if re.match(r"(make|pipx|icr-proxy|curl|export) ", line)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def typed(line: str, env: dict[str, str], folder: Path) -> str:
    """Run one line in a shell; give what it printed."""
    process = await asyncio.create_subprocess_shell(
        line, cwd=folder, env=env, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(GUARD_SECONDS):
        out, _ = await process.communicate()
    assert process.returncode == 0, line
    return out.decode()


@pytest.mark.parametrize("name", ["README.md", "docs/get-started.md"])
async def test_the_first_request_works_as_it_is_written(
    name: str, emulator: Emulator, tmp_path: Path
) -> None:
    """With IDs, key and address of the emulator in place of the reader's."""
    installation = next(iter(emulator.world.installations.values()))
    port = free_port()
    env = environment(emulator, tmp_path) | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ICR_PROXY_LISTENERS__0__BIND": f"127.0.0.1:{port}",
        "INSTALLATION": installation.id,
        "ORGANIZATION": installation.organization.id,
    }
    (tmp_path / "app.pem").rename(tmp_path / "icr_private_key.pem")
    for key in ("ICR_PROXY_APP__ID", "ICR_PROXY_APP__PRIVATE_KEY_FILE"):
        del env[key]
    base_url = env.pop("ICR_PROXY_UPSTREAM__BASE_URL")
    ours = {"https://sandbox-api.carbonregistry.com": base_url, ":8080": f":{port}"}
    for text in blocks(ROOT / name, "yaml")[:1]:
        configured = re.sub(r"(?<= id: ).*", emulator.app_id, replaced(text, ours))
        (tmp_path / "icr-proxy.yaml").write_text(configured)
    proxy: asyncio.subprocess.Process | None = None
    answers = []

    try:
        for written in commands(ROOT / name):
            line = replaced(written, ours)
            if line in RUN_ELSEWHERE:
                continue
            if line.startswith("export "):
                variable, _, value = line.removeprefix("export ").partition("=")
                env[variable] = value.replace("…", emulator.app_id)
            elif line.startswith("icr-proxy run"):
                proxy = await asyncio.create_subprocess_shell(
                    f"exec {line}", cwd=tmp_path, env=env, stdout=asyncio.subprocess.PIPE
                )
                assert proxy.stdout is not None
                async with asyncio.timeout(GUARD_SECONDS):
                    while b"proxy.ready" not in await proxy.stdout.readline():
                        pass
            elif line.startswith("curl"):
                answers.append(json.loads(await typed(line, env, tmp_path)))
            else:
                await typed(line, env, tmp_path)
    finally:
        if proxy is not None:
            proxy.terminate()
            await proxy.communicate()

    assert [answer["organizationId"] for answer in answers] == [installation.organization.id]


def replaced(text: str, ours: dict[str, str]) -> str:
    for theirs, mine in ours.items():
        text = text.replace(theirs, mine)
    return text
