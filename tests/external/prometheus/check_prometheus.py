"""A real Prometheus scrapes the real program under traffic: `.ci/run` runs this, not `make test`.

Every expression of the dashboard must give data, every rule must be one Prometheus can evaluate,
and what the program exposes must be to promtool's liking.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from icr_proxy.emulator.server import Emulator
from icr_proxy.emulator.settings import EmulatorSettings
from icr_proxy.policy.caller_auth import hash_of, new_key
from tests.support.app_fixture import app_key_pem, call, request_head
from tests.support.program import program_before

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
RULES = ROOT / "config" / "prometheus-rules.yaml"
DASHBOARD = ROOT / "config" / "grafana-dashboard.json"
SCRAPES = 6
GUARD_SECONDS = 40
KEY = new_key()
KEYED = f"Proxy-Authorization: Bearer {KEY}\r\n"

PANELS = [
    (f"{panel['title']} / {target['refId']}", target["expr"])
    for panel in json.loads(DASHBOARD.read_text())["panels"]
    for target in panel.get("targets", ())
]
EXPRESSIONS = [
    (rule.get("alert") or rule["record"], rule["expr"])
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
]
NAME = re.compile(r"\bicr_proxy_[a-z_]+")


def promtool(*words: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["promtool", *words], input=given, capture_output=True, check=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


class Observed:
    """What Prometheus knows, and what it was told by."""

    def __init__(self, url: str, exposition: bytes, *, at: float) -> None:
        self.url = url
        self.exposition = exposition
        self.at = at

    def query(self, expression: str) -> list[dict[str, Any]]:
        for variable, value in (
            ("$__rate_interval", "10s"), ("$job", ".*"), ("$instance", ".*"),
        ):  # fmt: skip
            expression = expression.replace(variable, value)
        asked = urllib.parse.urlencode({"query": expression, "time": self.at})
        answer = json.loads(fetch(f"{self.url}/api/v1/query?{asked}"))
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


async def traffic(port: int, emulator: Emulator, *, rounds: int) -> None:
    """Do a bit of everything that is counted."""
    one, other = list(emulator.world.installations.values())[:2]
    inventory = f"/organizations/{one.organization.id}/inventory"
    post = "Content-Length: 2\r\n"
    requests = [
        request_head(target=inventory, tag=one.id, extra=KEYED),
        request_head(target="/projects", tag=other.id, extra=KEYED),
        request_head("POST", "/v1/retire", tag=one.id, extra=KEYED + post) + b"{}",
        request_head("DELETE", "/v1/x/accounts/y", tag=one.id, extra=KEYED),
        request_head(tag=None, extra=KEYED),
        request_head(tag="unknown", extra=KEYED),
        request_head(tag=one.id),
    ]
    for _ in range(rounds):
        for request in requests:
            await call(port, request)
        emulator.world.revoke_all(one.id)
        await asyncio.sleep(0.2)  # so that there is a rate: Prometheus scrapes meanwhile


CONFIG = """
callers: [{{name: tool, keys: ["{hashed}"]}}]
policy:
  mode: report
  duplicate_guard: 10s
  rules: [{{name: no-deletes, action: deny, methods: [DELETE]}}]
audit: {{directory: "{folder}/trail", fsync: never}}
upstream: {{circuit: {{failures: 10}}}}
"""


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("prometheus")
    config = folder / "proxy.yaml"
    admin = f"127.0.0.1:{free_port()}"
    config.write_text(CONFIG.format(hashed=hash_of(KEY), folder=folder))
    with prometheus(folder, target=admin) as url:
        yield asyncio.run(serve(folder, config, url, admin=admin))


async def serve(folder: Path, config: Path, url: str, *, admin: str) -> Observed:
    """Serve traffic until Prometheus has looked often enough; ask it about that moment.

    Not about a later one: a scrape that fails once the program stops ends every series.
    """
    settings = EmulatorSettings(installations=3)
    words = ("--config", str(config), "--admin", admin)
    async with (
        Emulator(settings, private_keys=[app_key_pem()]) as emulator,
        program_before(emulator, folder, *words) as program,
    ):
        end = time.monotonic() + GUARD_SECONDS
        while await asyncio.to_thread(_scrapes, url) < SCRAPES:
            assert time.monotonic() < end, "Prometheus does not scrape"
            await traffic(program.port, emulator, rounds=2)
        at = time.time()  # noqa: TID251  # Prometheus wants a real time
        return Observed(url, await asyncio.to_thread(fetch, f"http://{admin}/metrics"), at=at)


def _scrapes(url: str) -> int:
    asked = urllib.parse.urlencode({"query": "count_over_time(icr_proxy_build_info[1m])"})
    try:
        found = json.loads(fetch(f"{url}/api/v1/query?{asked}"))["data"]["result"]
    except OSError:
        return 0
    return int(found[0]["value"][1]) if found else 0


@contextmanager
def prometheus(folder: Path, *, target: str) -> Iterator[str]:
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(
        f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{RULES}"]
scrape_configs:
  - job_name: icr-proxy
    static_configs: [{{targets: ["{target}"]}}]
"""
    )
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def test_the_tools_are_there() -> None:
    assert shutil.which("prometheus"), "apt-get install prometheus"
    assert shutil.which("promtool"), "apt-get install prometheus"


def test_promtool_finds_no_fault_with_the_rules() -> None:
    done = promtool("check", "rules", RULES)

    assert done.returncode == 0, done.stderr.decode()


def test_the_rules_do_what_their_own_tests_say() -> None:
    done = promtool("test", "rules", Path(__file__).parent / "rules_test.yaml")

    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_every_alert_has_a_test_of_its_own() -> None:
    tested = (Path(__file__).parent / "rules_test.yaml").read_text()
    alerts = {name for name, _ in EXPRESSIONS if name.startswith("Icr")}

    assert {name for name in alerts if not re.search(rf"alertname: {name}\b", tested)} == set()


def test_promtool_finds_no_fault_with_the_metrics(observed: Observed) -> None:
    done = promtool("check", "metrics", given=observed.exposition)

    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""


@pytest.mark.parametrize(("panel", "expression"), PANELS, ids=[name for name, _ in PANELS])
def test_a_panel_of_the_dashboard_has_data(observed: Observed, panel: str, expression: str) -> None:
    found = observed.query(expression)

    assert found, f"{panel}: no data for {expression}"


@pytest.mark.parametrize(("rule", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_a_rule_is_about_metrics_that_exist(observed: Observed, rule: str, expression: str) -> None:
    observed.query(expression)  # which fails if it cannot be evaluated

    exposed = {
        line.split()[2] for line in observed.exposition.decode().splitlines() if "TYPE" in line
    }
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in NAME.findall(expression)}
    recorded = {name for name in named if name.startswith("icr_proxy:")}
    assert named - recorded - {"icr_proxy_"} <= exposed | {"icr_proxy"}, rule
