"""The Kubernetes API, for the one thing that is asked of it: to believe our authority.

With nothing but the standard library, and blocking: whoever calls does so in a thread.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import ClusterError
from icr_proxy.injector.bundle import ROOM, lacks, missing_from, read_configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from icr_proxy.injector.bundle import Configuration

# Where Kubernetes tells a pod that its API is.
HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/"
ASK_SECONDS = 10.0
ANSWER_MOST = 4 << 20  # bytes; objects are at most 1.5 MiB
OK, NOT_FOUND, CONFLICT = 200, 404, 409
# A conflict means that another writer was faster, so of N injectors that start together the last
# one has N - 1 conflicts.
TRIES = ROOM


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where the API is, and as whom it is asked."""

    host: str
    port: int
    account: Path

    def publish(
        self, webhook: str, own: bytes, *, now: float, on_missing: Callable[[], None]
    ) -> bool:
        """Put our authority into a webhook configuration unless it is there; say if that is new.

        `on_missing` is called as soon as the authority is found to be missing. From then on, and
        until this returns, the API server does not trust this injector.

        Raises:
            ClusterError: it cannot be done; the sentence says why.
        """
        was_missing = False
        for _ in range(TRIES):
            found = self._find(webhook)
            if found is None or lacks(found, own):
                was_missing = True
                on_missing()
            if found is None:
                raise _refused(NOT_FOUND, f"get {webhook}")
            patch = missing_from(found, own, now=now)
            if not patch or self._change(webhook, patch):
                return was_missing
        raise ClusterError(f"{webhook} is changed by somebody else all the time")

    def _find(self, webhook: str) -> Configuration | None:
        """Get it; None if there is none."""
        status, body = self._ask("GET", WEBHOOKS + webhook)
        if status == NOT_FOUND:
            return None
        if status != OK:
            raise _refused(status, f"get {webhook}")
        return read_configuration(body)

    def _change(self, webhook: str, patch: list[dict[str, object]]) -> bool:
        status, _ = self._ask("PATCH", WEBHOOKS + webhook, body=msgspec.json.encode(patch))
        if status not in (OK, CONFLICT):
            raise _refused(status, f"patch {webhook}")
        return status == OK

    def _ask(self, method: str, path: str, *, body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json-patch+json"
        try:
            # Read each time: Kubernetes renews the token, of which an hour is the rule.
            token = (self.account / "token").read_text("ascii").strip()
            connection = http.client.HTTPSConnection(
                self.host,
                self.port,
                timeout=ASK_SECONDS,
                context=trusting(self.account / "ca.crt"),
            )
            try:
                authorization = {"Authorization": f"Bearer {token}"}
                connection.request(method, path, body=body, headers=headers | authorization)
                answer = connection.getresponse()
                return answer.status, answer.read(ANSWER_MOST)
            finally:
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as exc:
            # Not the text of a ValueError: http.client quotes a malformed header's value.
            why = getattr(exc, "strerror", None) or type(exc).__name__
            raise ClusterError(f"the Kubernetes API cannot be asked: {why}") from None


def trusting(ca_file: Path) -> ssl.SSLContext:
    """Trust the cluster's CA as kubectl and the kubelet do.

    From Python 3.13 on the default context also demands key usage and key identifiers of each
    certificate (VERIFY_X509_STRICT). The CAs of many clusters have none: of MicroK8s until 2026,
    of old EKS clusters, of all that were made by plain `openssl req -x509`. Signatures, names and
    dates are still verified.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def cluster_around(environ: Mapping[str, str], *, account: Path) -> Cluster:
    """Find the API of the cluster that this pod is in.

    Raises:
        ClusterError: this is no pod, or it has no account.
    """
    host, port = environ.get(HOST), environ.get(PORT, "443")
    if not host or not port.isdecimal():
        raise ClusterError(f"--patch-webhook: {HOST} and {PORT} are not set; is this a pod?")
    for name in ("token", "ca.crt"):
        if not (account / name).is_file():
            raise ClusterError(
                f"--patch-webhook: {account / name} is missing; the pod needs a service account"
                " whose token is mounted (automountServiceAccountToken: true)"
            )
    return Cluster(host=host, port=int(port), account=account)


def _refused(status: int, what: str) -> ClusterError:
    return ClusterError(f"the Kubernetes API answered {status} to: {what}")
