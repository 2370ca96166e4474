"""A Kubernetes API that has one webhook configuration, over TLS, and does as a script says."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from icr_proxy.injector.authority import WEBHOOKS, Cluster
from tests.support.certificate_authority import Issued, authority, server_certificate
from tests.support.pods import Manifest, applied

TOKEN = "sa-token-1"


@dataclass
class Api:
    """What it has, and what it was asked."""

    cluster: Cluster
    stored: Manifest
    asked: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Of the next answers, in place of what would be right."""
    conflicts: int = 0
    """How many times somebody else is faster."""
    changed: threading.Event = field(default_factory=threading.Event)

    @property
    def account(self) -> Path:
        return self.cluster.account

    async def until_changed(self) -> None:
        """Wait for a change."""
        assert await asyncio.to_thread(self.changed.wait, 20)
        self.changed.clear()


def configuration() -> Manifest:
    client = {"service": {"name": "injector", "namespace": "icr", "path": "/mutate"}}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "icr-proxy-injector", "resourceVersion": "100"},
        "webhooks": [{"name": "injector.icr-proxy.internal", "clientConfig": client}],
    }


@contextmanager
def api_server(
    folder: Path,
    *,
    ca: Issued | None = None,
    certificate: Issued | None = None,
    host: str = "127.0.0.1",
) -> Iterator[Api]:
    """Serve as `kubernetes.default.svc` does, to whoever shows the right token."""
    ca = ca or authority()
    certificate = certificate or server_certificate(by=ca)
    account = folder / "account"
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "ca.crt").write_bytes(ca.cert_pem)
    server = (Server6 if ":" in host else Server)((host, 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate.write(folder, "api"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    cluster = Cluster(host=host, port=server.server_address[1], account=account)
    api = server.api = Api(cluster, configuration())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Server(ThreadingHTTPServer):
    """Knows what is served."""

    api: Api


class Server6(Server):
    """The same, in a cluster of IPv6."""

    address_family = socket.AF_INET6


class Handler(BaseHTTPRequestHandler):
    """Answers."""

    server: Server

    def do_GET(self) -> None:
        self._answer(self._status() or 200)

    def do_PATCH(self) -> None:
        assert self.headers["Content-Type"] == "application/json-patch+json"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(self._status() or self._change(body))

    def _status(self) -> int | None:
        api = self.server.api
        api.asked.append(f"{self.command} {self.path.removeprefix(WEBHOOKS)}")
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return 401
        if self.path != WEBHOOKS + "icr-proxy-injector":
            return 404
        return api.statuses.pop(0) if api.statuses else None

    def _change(self, patch: list[dict[str, Any]]) -> int:
        api = self.server.api
        if api.conflicts:
            api.conflicts -= 1
            grow(api.stored)
        wanted = applied(api.stored, patch)
        if wanted["metadata"]["resourceVersion"] != api.stored["metadata"]["resourceVersion"]:
            return 409
        grow(wanted)
        api.stored = wanted
        api.changed.set()
        return 200

    def _answer(self, status: int) -> None:
        content = self.server.api.stored if status == 200 else {"kind": "Status"}
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


def grow(found: Manifest) -> None:
    """Count a change."""
    version = int(found["metadata"]["resourceVersion"]) + 1
    found["metadata"]["resourceVersion"] = str(version)
