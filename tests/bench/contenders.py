"""The proxies that are compared, each started as its users would, with the credential headers."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.bench.machinery import CONTENDER_CORE, Process, folder_in, free_port, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE = Path(__file__).parent
TOKEN = "Bearer crs_yardstick"  # of nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all contenders get."""

    tools: Path
    """Where the yardsticks were installed."""
    work: Path
    upstream: str
    ca: Path
    key: Path
    """A private key for App JWTs."""


Command = tuple["Sequence[str | Path]", "Mapping[str, str]"]


@contextmanager
def running(
    name: str, stage: Stage, *, python: Path | None = None
) -> Iterator[tuple[Process, str]]:
    """Start a contender; give its process and its base URL. `python` is another checkout's."""
    port = free_port()
    work = folder_in(stage.work, name)
    make = CONTENDERS.get(name, _icr_proxy)
    command, env = make(stage, port, work) if python is None else _of(python, stage, port, work)
    with started(
        name, command, core=CONTENDER_CORE, log=work / "out.log", env=env, cwd=work
    ) as process:
        yield process, f"http://127.0.0.1:{port}"


def _icr_proxy(stage: Stage, port: int, work: Path) -> Command:
    return _of(Path(sys.executable), stage, port, work)


def _of(python: Path, stage: Stage, port: int, work: Path) -> Command:
    config = settings_file(stage, port, work)
    return (python.with_name("icr-proxy"), "run", "--config", config), {}


def settings_file(stage: Stage, port: int, work: Path) -> Path:
    """Write the configuration of the proxy: as it comes, with room for the larger loads."""
    config = work / "config.yaml"
    config.write_text(
        f"""
app: {{id: bench, private_key_file: {stage.key}}}
upstream: {{base_url: "{stage.upstream}", ca_file: {stage.ca}}}
listeners: [{{bind: "127.0.0.1:{port}"}}]
limits: {{in_flight: 20000, idle_timeout: 10m}}
tokens: {{max_entries: 20000}}
admin: {{bind: "127.0.0.1:{free_port()}"}}
logs: {{format: json}}
"""
    )
    return config


def _aiohttp(stage: Stage, port: int, work: Path) -> Command:  # noqa: ARG001
    return (sys.executable, HERE / "obvious.py", str(port), stage.upstream, stage.ca), {}


def _go(stage: Stage, port: int, work: Path) -> Command:  # noqa: ARG001
    return (
        stage.tools / "benchtool", "proxy", "-listen", f"127.0.0.1:{port}",
        "-upstream", stage.upstream, "-ca", stage.ca,
    ), {"GOMAXPROCS": "1"}  # fmt: skip


def _nginx(stage: Stage, port: int, work: Path) -> Command:
    (work / "nginx.conf").write_text(_filled("nginx.conf", stage, port, work))
    return ("nginx", "-p", work, "-c", work / "nginx.conf"), {}


def _envoy(stage: Stage, port: int, work: Path) -> Command:
    encrypted = stage.upstream.startswith("https:")
    transport = _filled("envoy-tls.yaml", stage, port, work) if encrypted else ""
    text = _filled("envoy.yaml", stage, port, work, transport=transport)
    (work / "envoy.yaml").write_text(text)
    return (
        stage.tools / "bin" / "envoy", "-c", work / "envoy.yaml", "--concurrency", "1",
        "--base-id", str(port), "-l", "error",
    ), {}  # fmt: skip


def _filled(file: str, stage: Stage, port: int, work: Path, **more: str) -> str:
    url = urlsplit(stage.upstream)
    return Template((HERE / file).read_text()).substitute(
        port=port, work=work, ca=stage.ca, token=TOKEN, scheme=url.scheme, netloc=url.netloc,
        upstream_port=url.port, **more,
    )  # fmt: skip


CONTENDERS: dict[str, Callable[[Stage, int, Path], Command]] = {
    "icr-proxy": _icr_proxy,
    "envoy": _envoy,
    "nginx": _nginx,
    "go": _go,
    "aiohttp": _aiohttp,
}
