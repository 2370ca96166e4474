"""The image, built and run: `.ci/run` does this, not `make test`.

Confined as Kubernetes' restricted profile wants it: nobody's user, read-only root, no capabilities,
128 MiB. The emulator runs from the same image.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.external.image.engine import BASE, CONFINED, PROGRAMS, ROOT, Engine

pytestmark = pytest.mark.timeout(600)  # the first test waits for the image to be built
TAG = "localhost/icr-proxy:test"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "icr-proxy"
MIB = 1 << 20
MOST_COMPRESSED = 60 * MIB  # bytes over the base
TOOLS = Path(sys.executable).parent
QUIETLY = ("--skip-check-update", "--skip-version-check", "-q")


def tool(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    found = TOOLS / name
    assert found.exists(), f"{name} is missing: pip install -r requirements/ci.lock"
    return subprocess.run(
        [str(word) for word in (found, *words)], capture_output=True, text=True, check=False
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    assert not missing, f"apt-get install {' '.join(missing)}"
    engine = Engine(tmp_path_factory.mktemp("engine"))
    engine.make_base(CACHE)
    engine.build(TAG)
    yield engine
    engine.run("rm", "--all", "--force", "--time", "1")
    engine.run("rmi", "--all", "--force")


class Stage:
    """An emulator and a proxy, each in a container."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.keys = folder / "keys"
        self.keys.mkdir()
        for each in (folder, self.keys):
            each.chmod(0o777)  # nobody's user writes the key, and reads it
        self.upstream, self.port, self.admin = free_port(), free_port(), free_port()
        self.called = datetime.min.replace(tzinfo=UTC)
        """When podman was told to run the proxy."""

    def start(self) -> None:
        """Start both; the proxy waits for nothing, so the emulator comes first."""
        mount = ("-v", f"{self.keys}:/keys")
        self.engine.run(
            "run", "-d", "--name", "emulator", *CONFINED, *mount, TAG, "emulator",
            "--port", str(self.upstream), "--key-file", "/keys/app.pem",
        )  # fmt: skip
        self.engine.until_logged("emulator", "Ask through the proxy")
        self.called = datetime.now(UTC)  # noqa: TID251  # to compare with a log line's
        self.engine.run("run", "-d", "--name", "proxy", *CONFINED, *mount, *self._settings(), TAG)
        self.engine.until_logged("proxy", "proxy.ready")

    def _settings(self) -> list[str]:
        app = re.search(r"app id +(\S+)", self.engine.logs("emulator"))
        assert app is not None
        values = {
            "APP__ID": app[1],
            "APP__PRIVATE_KEY_FILE": "/keys/app.pem",
            "UPSTREAM__BASE_URL": f"http://127.0.0.1:{self.upstream}",
            "LISTENERS__0__BIND": f"127.0.0.1:{self.port}",
            "ADMIN__BIND": f"127.0.0.1:{self.admin}",
        }
        return [
            word for key, value in values.items() for word in ("-e", f"ICR_PROXY_{key}={value}")
        ]

    def control(self, path: str, body: object) -> None:
        """Tell the emulator something."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.upstream}/_emulator/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=10).close()

    def ask(self) -> tuple[int, Any]:
        """Ask for an inventory, as a tool would."""
        row = re.search(r"^  (\S{36})  (\S{36})", self.engine.logs("emulator"), re.MULTILINE)
        assert row is not None
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/organizations/{row[2]}/inventory",
            headers={"X-ICR-Installation-Id": row[1]},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)


@pytest.fixture(scope="module")
def stage(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    stage = Stage(engine, tmp_path_factory.mktemp("stage"))
    stage.start()
    return stage


def test_the_dockerfile_is_as_hadolint_likes_it() -> None:
    done = tool("hadolint", ROOT / "Dockerfile")

    assert done.returncode == 0, done.stdout + done.stderr


def test_trivy_finds_no_fault_with_the_dockerfile() -> None:
    done = tool("trivy", "config", *QUIETLY, "--exit-code", "1", ROOT / "Dockerfile")

    assert done.returncode == 0, done.stdout + done.stderr


def test_what_may_be_configured_for_serving_is_there(stage: Stage) -> None:
    stage.engine.run(
        "exec",
        "proxy",
        "python3",
        "-c",
        "import redis, icr_proxy.observability.tracing, icr_proxy.shared_cache.redis_store",
    )


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_dependency_has_a_wheel_for_this_machine(machine: str, tmp_path: Path) -> None:
    platforms = [f"--platform=manylinux{tag}_{machine}" for tag in ("2014", "_2_17", "_2_28")]
    done = tool(
        "python", "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
        "--python-version=3.13", "--implementation=cp", *platforms, "--require-hashes",
        "-r", ROOT / "requirements" / "image.lock", "-d", tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_zizmor_finds_no_fault_with_the_workflows() -> None:
    done = tool("zizmor", "--offline", "--persona", "pedantic", ROOT / ".github" / "workflows")

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_main_job_is_done_by_a_confined_container(stage: Stage) -> None:
    status, answer = stage.ask()

    assert status == 200
    assert answer["credits"]


def test_it_runs_as_nobody_in_particular_with_no_powers(stage: Stage) -> None:
    said = stage.engine.run("exec", "proxy", "cat", "/proc/1/status").stdout

    values = dict(line.split(":", 1) for line in said.splitlines())
    assert values["Uid"].split() == ["65532"] * 4
    assert int(values["CapEff"], 16) == 0
    assert int(values["NoNewPrivs"]) == 1


def test_nothing_can_be_written_into_it(stage: Stage) -> None:
    words = ("proxy", "python3", "-c", "open('/opt/icr-proxy/x', 'w')")
    done = subprocess.run(
        stage.engine.podman("exec", *words), env=stage.engine.env, capture_output=True, check=False
    )

    assert done.returncode == 1
    assert b"Read-only file system" in done.stderr or b"Permission denied" in done.stderr


def test_the_environment_belongs_to_root(stage: Stage) -> None:
    code = (
        "import os, pathlib; print([str(p) for p in pathlib.Path('/opt/icr-proxy').rglob('*')"
        " if os.lstat(p).st_uid or os.lstat(p).st_mode & 0o022 and not p.is_symlink()])"
    )

    assert stage.engine.run("exec", "proxy", "python3", "-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command", [("health",), ("health", "--ready"), ("wait", "--timeout", "5")], ids=" ".join
)
def test_probes_need_no_shell(stage: Stage, command: tuple[str, ...]) -> None:
    admin = f"127.0.0.1:{stage.admin}"

    stage.engine.run("exec", "proxy", "icr-proxy", *command, "--admin", admin)


def test_the_health_check_of_the_image_is_good(stage: Stage) -> None:
    stage.engine.run("healthcheck", "run", "proxy")


def test_the_image_is_small(engine: Engine) -> None:
    """Its own layer, compressed as registries keep it; the base is somebody else's."""
    folder = engine.folder / "oci"
    engine.do("buildah", "push", "-q", TAG, f"oci:{folder}:t")
    manifest = json.loads(engine.do("skopeo", "inspect", "--raw", f"oci:{folder}:t").stdout)
    own = sum(layer["size"] for layer in manifest["layers"][1:])
    whole, base = (
        int(engine.run("image", "inspect", "--format", "{{.Size}}", each).stdout)
        for each in (TAG, BASE)
    )

    sizes = f"{own / MIB:.1f} MiB compressed, {(whole - base) / MIB:.1f} MiB on the disk"
    print(f"\nthe image adds to its base {sizes}")  # noqa: T201
    assert 0 < own < MOST_COMPRESSED


def test_how_soon_it_is_ready_is_told(stage: Stage) -> None:
    """Told, not judged: what podman does first, copying the base among it, is the machine's."""
    lines = (json.loads(line) for line in stage.engine.logs("proxy").splitlines())
    ready = next(line["ts"] for line in lines if line["event"] == "proxy.ready")
    moment = ("inspect", "--format", "{{.State.StartedAt.UnixMilli}}", "proxy")
    started = int(stage.engine.run(*moment).stdout) / 1000

    at = datetime.fromisoformat(ready).timestamp()
    called, running = at - stage.called.timestamp(), at - started
    print(f"\nready {called:.2f} s after `podman run`, {running:.2f} s after its start")  # noqa: T201
    assert 0 < running < called


def test_there_is_no_secret_in_the_image(engine: Engine) -> None:
    archive = engine.folder / "image.tar"
    engine.run("save", "--format", "docker-archive", "-o", archive, TAG)
    words = ("--scanners", "secret", "--image-config-scanners", "misconfig,secret")
    done = tool("trivy", "image", "--input", archive, *words, *QUIETLY, "--exit-code", "1")

    assert done.returncode == 0, done.stdout + done.stderr


def test_no_path_of_the_machine_that_built_it_is_in_the_image(stage: Stage) -> None:
    code = (
        "import pathlib; print([str(p) for p in pathlib.Path('/').glob('src*')]"
        " + [str(p) for p in pathlib.Path('/opt/icr-proxy').rglob('pip')])"
    )

    assert stage.engine.run("exec", "proxy", "python3", "-c", code).stdout.strip() == "[]"


def test_stopping_ends_with_0_and_loses_no_request_in_flight(stage: Stage) -> None:
    """The last test on this stage: afterwards it is gone."""
    stage.ask()
    stage.control("settings", {"latency": 2.0})
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(stage.ask()[0]))
    caller.start()
    metrics = f"http://127.0.0.1:{stage.admin}/metrics"
    end = time.monotonic() + 10
    while b"icr_proxy_in_flight 1.0" not in urllib.request.urlopen(metrics, timeout=5).read():
        assert time.monotonic() < end

    stage.engine.run("stop", "--time", "20", "proxy")
    caller.join()

    assert answers == [200]
    code = stage.engine.run("inspect", "--format", "{{.State.ExitCode}}", "proxy").stdout.strip()
    assert code == "0"
    assert "proxy.stopped" in stage.engine.logs("proxy")
