"""`icr-proxy injector` as a program of its own, asked as a Kubernetes API server asks it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from icr_proxy.emulator.server import Emulator
from tests.support.app_fixture import RawAnswer, call, read_answer, request_head
from tests.support.certificate_authority import authority, server_certificate
from tests.support.fake_cluster import api_server
from tests.support.pods import ASKED, Manifest, job_pod, patched, pod, response_in, review
from tests.support.program import Program, run_to_end, start

CLEAN = {name: text for name, text in os.environ.items() if not name.startswith("ICR_")}
KEYS = "ICR_PROXY_APP__PRIVATE_KEYS_DIR"
GIVEN = ("--app-id", "1f3a8a4e", "--key-secret", "icr-app-keys", "--listen", "127.0.0.1:0")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Running:
    """The program, and how to ask it."""

    program: Program
    address: str
    trust: ssl.SSLContext

    async def ask(self, content: object) -> RawAnswer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = (
            f"POST /mutate?timeout=10s HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return await self.send(head.encode(), body)

    async def send(self, *parts: bytes) -> RawAnswer:
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=self.trust)
        try:
            writer.writelines(parts)
            return await read_answer(reader)
        finally:
            writer.transport.abort()

    async def review(self, manifest: Manifest, **request: Any) -> Manifest:
        answer = await self.ask(review(manifest, **request))
        assert answer.status == 200
        return response_in(json.loads(answer.body))

    async def end(self) -> int:
        self.program.process.send_signal(signal.SIGTERM)
        self.program.process.send_signal(signal.SIGTERM)
        return await self.program.end()


@asynccontextmanager
async def running(
    *words: str, pem: bytes | None = None, around: dict[str, str] | None = None
) -> AsyncIterator[Running]:
    process = await start(["injector", *GIVEN, *words], CLEAN | (around or {}))
    program = Program(process)
    try:
        ready = await program.until("injector.ready")
        trust = ssl.create_default_context(cadata=(pem.decode() if pem else ready["ca"]))
        yield Running(program, ready["listener"], trust)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
async def injector(tmp_path: Path) -> AsyncIterator[Running]:
    cert, key = server_certificate().write(tmp_path)
    words = ("--tls-cert", str(cert), "--tls-key", str(key))
    async with running(*words, pem=authority().cert_pem) as injector:
        yield injector


async def test_a_conversation_with_an_api_server(injector: Running) -> None:
    deployment = await injector.review(pod(ASKED))
    job = await injector.review(job_pod(ASKED), dryRun=True)
    again = await injector.review(patched(pod(ASKED), deployment))
    crowded = await injector.review(
        pod(ASKED, containers=[{"name": "web", "ports": [{"containerPort": 8080}]}])
    )
    mistaken = await injector.review(pod(ASKED | {"read-only": "perhaps"}))
    silent = await injector.review(pod())
    system = await injector.review(pod(ASKED), namespace="kube-system")
    malformed = await injector.ask(b'{"kind":"AdmissionReview"}')
    length = b"Content-Length: %d\r\n\r\n" % (3 << 21)
    huge = await injector.send(b"POST /mutate HTTP/1.1\r\nHost: x\r\n" + length, b"x" * 65536)

    assert await injector.end() == 0
    web, retire = patched(pod(ASKED), deployment), patched(job_pod(ASKED), job)
    assert [each["name"] for each in web["spec"]["initContainers"]] == ["icr-proxy"]
    assert [each["name"] for each in retire["spec"]["initContainers"]] == ["icr-proxy", "fetch"]
    assert set(again) == {"uid", "allowed"}
    assert (crowded["allowed"], crowded["status"]["code"]) == (False, 403)
    assert "container web has port 8080" in crowded["status"]["message"]
    assert (mistaken["allowed"], mistaken["status"]["code"]) == (False, 422)
    assert mistaken["status"]["message"] == (
        'icr-proxy: icr-proxy/read-only: "perhaps" is neither true nor false'
    )
    assert set(silent) == {"uid", "allowed"}
    assert system["warnings"] == ["icr-proxy: nothing is injected in namespace kube-system"]
    assert (malformed.status, malformed.problem["code"]) == (400, "bad-request")
    assert (huge.status, huge.problem["code"]) == (413, "body-too-large")
    results = [
        line["result"] for line in injector.program.lines if line["event"] == "injector.reviewed"
    ]
    assert results == [
        "injected", "injected", "already", "refused", "refused", "untouched", "untouched",
    ]  # fmt: skip


async def test_what_is_injected_runs_and_its_probes_pass(injector: Running, tmp_path: Path) -> None:
    """The container is played with its own arguments, environment and commands."""
    async with Emulator() as emulator:
        owner = next(iter(emulator.world.installations.values()))
        said = {
            "inject": "true",
            "app-id": emulator.app_id,
            "base-url": emulator.base_url,
            "installation": owner.id,
            "read-only": "true",
            "port": str(free_port()),
            "admin-port": str(free_port()),
        }
        made = patched(pod(said), await injector.review(pod(said)))
        container = made["spec"]["initContainers"][0]
        keys = tmp_path / "keys"
        keys.mkdir()
        (keys / "app.pem").write_text(emulator.private_key_pem)
        env = {each["name"]: each["value"] for each in container["env"]}
        assert env["ICR_PROXY_APP__PRIVATE_KEYS_DIR"] == container["volumeMounts"][0]["mountPath"]

        process = await start(container["args"], CLEAN | env | {KEYS: str(keys)})
        program = Program(process)
        try:
            ready = await program.until("proxy.ready")
            probes = [
                await run_to_end(container[probe]["exec"]["command"][1:], CLEAN)
                for probe in ("startupProbe", "livenessProbe")
            ]
            path = f"/organizations/{owner.organization.id}/inventory"
            read = await call(int(said["port"]), request_head(target=path, tag=None))
            written = await call(int(said["port"]), request_head("POST", "/v1/retire", tag=None))
            process.send_signal(signal.SIGTERM)
            ended = await program.end()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    assert ready["listeners"] == [f"127.0.0.1:{said['port']}"]
    assert [code for code, _, _ in probes] == [0, 0]
    assert read.status == 200
    assert written.problem["code"] == "policy-denied"
    assert ended == 0


async def test_a_pod_without_room_passes_where_that_is_chosen() -> None:
    words = ("--self-signed", "--for", "127.0.0.1", "--on-conflict", "pass", "--mode", "plain")
    async with running(*words) as injector:
        passed = await injector.review(pod(ASKED, hostNetwork=True))
        plain = await injector.review(pod(ASKED))

        assert await injector.end() == 0

    assert set(passed) == {"uid", "allowed", "warnings"}
    assert [each["name"] for each in patched(pod(ASKED), plain)["spec"]["containers"]] == [
        "icr-proxy",
        "web",
    ]


async def test_in_a_cluster_it_makes_itself_believed(tmp_path: Path) -> None:
    with api_server(tmp_path) as api:
        around = {
            "KUBERNETES_SERVICE_HOST": api.cluster.host,
            "KUBERNETES_SERVICE_PORT": str(api.cluster.port),
        }
        words = ("--self-signed", "--for", "127.0.0.1", "--patch-webhook", "icr-proxy-injector")
        account = ("--service-account", str(api.account))
        async with running(*words, *account, around=around) as injector:
            bundle = api.stored["webhooks"][0]["clientConfig"]["caBundle"]
            injector.trust = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
            ready = await injector.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")

            assert await injector.end() == 0

    assert ready.status == 200


async def test_without_an_account_it_says_what_the_pod_needs(tmp_path: Path) -> None:
    words = ["injector", *GIVEN, "--self-signed", "--for", "x", "--patch-webhook", "w"]
    account = ["--service-account", str(tmp_path)]

    code, _, err = await run_to_end(
        words + account, CLEAN | {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}
    )

    assert code == 2
    assert "automountServiceAccountToken" in err
