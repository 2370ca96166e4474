"""A pod's life, played without a cluster: mounts, probes, a changed ConfigMap, the end.

The program is the real one, with the arguments, the configuration and the probes that the chart
rendered; only addresses and the place of the mounts are others.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from icr_proxy.credentials.signing_key import parse_signing_key
from icr_proxy.emulator.registry.credentials import new_private_key
from icr_proxy.emulator.server import Emulator
from icr_proxy.emulator.settings import EmulatorSettings
from tests.external.chart.rendering import Manifest, helm4, only, pods
from tests.support.app_fixture import app_key_pem, call, request_head
from tests.support.program import GUARD_SECONDS, Program, program_run, run_to_end
from tests.unit.credentials.test_key_ring_choice import another_pem

MOUNTS, VOLUME = "/etc/icr-proxy", "/var/lib/icr-proxy"


class Mount:
    """A volume as the kubelet keeps it: links into a folder that is swapped as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._version = 0
        folder.mkdir()

    def write(self, **files: str) -> None:
        self._version += 1
        data = self._folder / f"..{self._version}"
        data.mkdir()
        for name, text in files.items():
            (data / name).write_text(text)
            if not (self._folder / name).is_symlink():
                (self._folder / name).symlink_to(f"..data/{name}")
        (self._folder / "..data_tmp").symlink_to(data.name)
        (self._folder / "..data_tmp").rename(self._folder / "..data")
        for each in self._folder.iterdir():
            if not each.name.startswith("..") and each.name not in files:
                each.unlink()


@dataclass
class Pod:
    """The program in a pod of the gateway's."""

    program: Program
    spec: Manifest
    config: Mount
    keys: Mount
    folder: Path
    emulator: Emulator
    environment: dict[str, str]

    def update(self, **config: Any) -> None:
        """Do what the kubelet does some time after `helm upgrade`."""
        text = config_text(rendered(self.emulator, config), self.folder)
        self.config.write(**{"icr-proxy.yaml": text})

    async def probe(self, name: str) -> int:
        """Ask as the kubelet does, by HTTP; give the status."""
        [container] = self.spec["containers"]
        path, port = container[name]["httpGet"]["path"], self.program.admin.rpartition(":")[2]
        request = f"GET {path} HTTP/1.1\r\nHost: 10.0.0.7:9090\r\n\r\n"
        return (await call(int(port), request.encode())).status

    async def ask(self, method: str = "GET", *, which: int = 0) -> int:
        installation = list(self.emulator.world.installations.values())[which]
        target = f"/organizations/{installation.organization.id}/inventory"
        head = request_head(method, target, tag=installation.id, extra="Content-Length: 0\r\n")
        return (await call(self.program.port, head)).status

    async def metrics(self) -> str:
        request = b"GET /metrics HTTP/1.1\r\nHost: 10.0.0.7:9090\r\n\r\n"
        answer = await call(int(self.program.admin.rpartition(":")[2]), request)
        return answer.body.decode()


def rendered(emulator: Emulator, config: dict[str, Any], **values: Any) -> list[Manifest]:
    local = {
        "app": {"id": emulator.app_id},
        "upstream": {"base_url": emulator.base_url},
        "listeners": [{"bind": "127.0.0.1:0"}],
    }
    return helm4({"config": local | config, "privateKey": {"secretName": "k"}, **values})


def config_text(manifests: list[Manifest], folder: Path) -> str:
    """Give the ConfigMap's file, with the admin port on any free one and the mounts in a folder."""
    text: str = only(manifests, "ConfigMap")["data"]["icr-proxy.yaml"]
    text = text.replace("*:9090", "*:0").replace(MOUNTS, str(folder))
    return text.replace(VOLUME, str(folder / "volume"))


@asynccontextmanager
async def pod(
    folder: Path, config: dict[str, Any] | None = None, **values: Any
) -> AsyncIterator[Pod]:
    keys_at_the_api = [app_key_pem(), another_pem()]
    async with Emulator(EmulatorSettings(), private_keys=keys_at_the_api) as emulator:
        manifests = rendered(emulator, config or {}, **values)
        [spec] = [each for each in pods(manifests) if "initContainers" not in each]
        keys, file = Mount(folder / "keys"), Mount(folder / "config")
        keys.write(**{"2026-11-25.pem": app_key_pem()})
        file.write(**{"icr-proxy.yaml": config_text(manifests, folder)})
        (folder / "volume").mkdir()
        words = [word.replace(MOUNTS, str(folder)) for word in spec["containers"][0]["args"]]
        clean = {name: it for name, it in os.environ.items() if not name.startswith("ICR_")}
        async with program_run(words, clean) as program:
            yield Pod(program, spec, file, keys, folder, emulator, clean)


async def test_a_pod_starts_with_the_mounts_of_the_chart_and_its_probes_are_answered(
    tmp_path: Path,
) -> None:
    async with pod(tmp_path) as running:
        assert await running.probe("startupProbe") == 200
        assert await running.probe("livenessProbe") == 200
        assert await running.probe("readinessProbe") == 200
        assert await running.ask() == 200


async def test_a_changed_config_map_takes_effect_without_a_restart(tmp_path: Path) -> None:
    async with pod(tmp_path) as running:
        before = await running.ask("DELETE")

        running.update(policy={"read_only": True})
        await running.program.until("config.reloaded")

        assert (before, await running.ask("DELETE"), await running.ask()) == (404, 403, 200)


async def test_of_the_keys_in_a_secret_the_last_by_name_signs_and_nothing_restarts(
    tmp_path: Path,
) -> None:
    """The runbook: all files of a mounted Secret are of one age, so names say which is new."""
    added = parse_signing_key(another_pem(), source="the new key").fingerprint
    active = f'icr_proxy_signing_key_info{{fingerprint="{added}",state="active"}} 1.0'
    async with pod(tmp_path) as running:
        assert await running.ask() == 200
        assert active not in await running.metrics()

        running.keys.write(**{"2026-11-25.pem": app_key_pem(), "2027-05-25.pem": another_pem()})

        assert await running.ask(which=1) == 200
        assert active in await running.metrics()


async def test_a_rotation_is_seen_on_a_pod_that_mints_nothing(tmp_path: Path) -> None:
    """The runbook, on a quiet pod: the new key is there after step 1, the old one gone after 3."""
    old, new = (
        parse_signing_key(pem, source="a key").fingerprint for pem in (app_key_pem(), another_pem())
    )
    async with pod(tmp_path) as running:
        running.keys.write(**{"2026-11-25.pem": app_key_pem(), "2027-05-25.pem": another_pem()})
        loaded = await running.program.until("key.loaded")
        both = await running.metrics()
        running.keys.write(**{"2027-05-25.pem": another_pem()})
        async with asyncio.timeout(GUARD_SECONDS):
            while old in await running.metrics():  # noqa: ASYNC110  # the metrics tell nobody
                await asyncio.sleep(0.05)
        left = await running.metrics()

    assert loaded["fingerprint"] == new
    assert f'icr_proxy_signing_key_info{{fingerprint="{old}",state="active"}} 1.0' in both
    assert f'icr_proxy_signing_key_info{{fingerprint="{new}",state="standby"}} 1.0' in both
    assert f'icr_proxy_signing_key_info{{fingerprint="{new}",state="active"}} 1.0' in left


async def test_a_trail_is_kept_on_the_volume(tmp_path: Path) -> None:
    async with pod(tmp_path, audit={"enabled": True}) as running:
        assert await running.ask() == 200
        running.program.process.send_signal(signal.SIGTERM)
        await running.program.end()

    trail = str(tmp_path / "volume" / "audit")
    code, said, _ = await run_to_end(["audit", "verify", trail], running.environment)
    assert code == 0, said


async def test_a_pod_that_must_go_is_not_ready_at_once_and_serves_on_meanwhile(
    tmp_path: Path,
) -> None:
    async with pod(tmp_path, {"shutdown": {"min_drain": "3s", "max_drain": "10s"}}) as running:
        running.program.process.send_signal(signal.SIGTERM)
        await running.program.until("proxy.draining")

        assert (await running.probe("readinessProbe"), await running.ask()) == (503, 200)
        async with asyncio.timeout(running.spec["terminationGracePeriodSeconds"]):
            assert await running.program.end() == 0


async def test_the_probe_of_a_sidecar_is_the_program_itself(tmp_path: Path) -> None:
    async with pod(tmp_path) as running:
        admin = running.program.admin
        for words in (["health", "--ready"], ["health"], ["wait", "--timeout", "60"]):
            code, _, said = await run_to_end([*words, "--admin", admin], running.environment)
            assert (code, said) == (0, "")


async def helm_test(running: Pod) -> tuple[int, int, str]:
    """Run what the pod of `helm test` runs; give both exit codes, and what the second one said."""
    manifests = rendered(running.emulator, {})
    spec = only(manifests, "Pod")["spec"]
    [waiting], [doctor] = spec["initContainers"], spec["containers"]
    waited, _, _ = await run_to_end(
        [*waiting["args"][:-1], f"127.0.0.1:{running.program.port}"], running.environment
    )
    text = (running.folder / "config" / "icr-proxy.yaml").read_text()
    # It has the mounts of the gateway, but an empty volume in place of that of a trail.
    (running.folder / "empty-volume").mkdir()
    text = text.replace(str(running.folder / "volume"), str(running.folder / "empty-volume"))
    of_the_test = running.folder / "of-the-test.yaml"
    of_the_test.write_text(text)
    words = [*doctor["args"][:-1], str(of_the_test)]
    code, said, _ = await run_to_end(words, running.environment)
    return waited, code, said


@pytest.mark.parametrize("values", [{}, {"audit": {"enabled": True}}], ids=["plain", "audit"])
async def test_helm_test_passes_where_requests_work(tmp_path: Path, values: Manifest) -> None:
    async with pod(tmp_path, **values) as running:
        waited, code, said = await helm_test(running)

    assert (waited, code) == (0, 0), said


async def test_helm_test_fails_where_the_api_refuses_the_key(tmp_path: Path) -> None:
    """The pod is ready all the same: only a token that is made shows it."""
    async with pod(tmp_path) as running:
        running.keys.write(**{"of-another-app.pem": new_private_key()})
        await running.program.until("key.loaded")
        assert await running.probe("readinessProbe") == 200

        waited, code, said = await helm_test(running)

    assert (waited, code) == (0, 1), said
    assert "app JWT" in said
