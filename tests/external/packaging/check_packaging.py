"""The other ways to run it: systemd units, a compose file, pipx, uvx, man page, completions.

`.ci/run` runs this, not `make test`: it needs system tools. No systemd runs here, so units are
checked by `systemd-analyze`, and what they rely on (sockets passed by name) has stories of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.timeout(600)  # pipx and uvx install into new environments
ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "config"
TOOLS = Path(sys.executable).parent
UNITS = ("icr-proxy.service", "icr-proxy.socket")
MOST_EXPOSED = 1.5  # of 10; systemd calls anything below 2 "OK"
# What it says of a machine on which the program is not installed.
ABOUT_THIS_MACHINE = re.compile(r"is not executable|Command 'man ")


def said(*words: str | Path, **more: Any) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout + done.stderr)


def test_systemd_finds_no_fault_with_the_units() -> None:
    assert shutil.which("systemd-analyze"), "apt-get install systemd"
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(CONFIG / unit) for unit in UNITS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if not ABOUT_THIS_MACHINE.search(line)] == []


def test_the_service_is_hardly_exposed() -> None:
    text = said(
        "systemd-analyze", "security", "--offline=yes", "--no-pager", CONFIG / UNITS[0]
    )  # fmt: skip

    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
    assert level is not None
    assert float(level[1]) <= MOST_EXPOSED


def test_the_service_takes_the_socket_by_the_name_the_socket_has() -> None:
    service, socket = ((CONFIG / unit).read_text() for unit in UNITS)

    name = re.search(r"^FileDescriptorName=(\S+)$", socket, re.MULTILINE)
    assert name is not None
    assert f"ICR_PROXY_LISTENERS__0__BIND=systemd:{name[1]}" in service


def test_the_compose_file_confines_the_proxy_and_shares_its_network_with_the_tool() -> None:
    services = yaml.safe_load((CONFIG / "compose.yaml").read_text())["services"]

    proxy, tool = services["icr-proxy"], services["tool"]
    assert proxy["read_only"]
    assert proxy["cap_drop"] == ["ALL"]
    assert tool["network_mode"] == "service:icr-proxy"
    assert tool["depends_on"]["icr-proxy"]["condition"] == "service_healthy"


def test_uvx_runs_it_from_a_checkout() -> None:
    assert said(TOOLS / "uvx", "--from", ROOT, "icr-proxy", "version").strip()


def test_pipx_installs_it_from_a_checkout(tmp_path: Path) -> None:
    env = {**os.environ, "PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    said(TOOLS / "pipx", "install", ROOT, env=env)

    assert said(tmp_path / "bin" / "icr-proxy", "version").strip()


def test_the_manual_page_is_one_that_troff_can_set() -> None:
    assert shutil.which("groff"), "apt-get install groff-base"
    text = said("groff", "-man", "-Tutf8", "-ww", ROOT / "docs" / "icr-proxy.1")

    assert "troff:" not in text
    assert "audit verify" in re.sub(r".\x08|\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands(shell: str) -> None:
    program = ROOT / ".venv" / "bin" / "icr-proxy"
    script = said(program, env={**os.environ, "_ICR_PROXY_COMPLETE": f"{shell}_source"})

    assert "icr-proxy" in script
    words = {"COMP_WORDS": "icr-proxy do", "COMP_CWORD": "1"}
    offered = said(program, env={**os.environ, "_ICR_PROXY_COMPLETE": "bash_complete", **words})
    assert "doctor" in offered
