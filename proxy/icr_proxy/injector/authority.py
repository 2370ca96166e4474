"""The injector's own certificate authority, and how Kubernetes is told to trust it.

It is that of `icr-proxy keys tls`: an authority that can vouch for these names alone, and a
certificate of it. The door reads the files anew when they change, so that renewing is writing.

Each injector has an authority of its own, whose key never leaves its pod, and adds it to those that
are there. So the bundle is a list in order of use: what is added, or renews its place, goes to the
front, and what is beyond the last place is dropped. An injector renews its place when it has moved
into the second half, so a living one is never dropped, as long as all of them fit into the first
half. Those of pods that have ended move back and leave.

With nothing but the standard library, and blocking: whoever calls does so in a thread.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import http.client
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from icr_proxy.config.inbound_models import TlsConfig
from icr_proxy.credentials import key_tools
from icr_proxy.credentials.key_tools import is_ours
from icr_proxy.errors import DECODE_ERRORS, ClusterError, KeyUnusableError, StartError
from icr_proxy.files import PUBLIC_MODE, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

RENEW_SECONDS = 30 * 86_400.0  # before the end: time enough to see that it fails


class Authority:
    """Keeps a folder with an authority and a certificate that is good."""

    def __init__(
        self, folder: Path, names: Sequence[str], *, now: Callable[[], float], copy: Path | None
    ) -> None:
        """Make what is missing in the folder; put the authority's certificate into `copy`, too.

        Raises:
            StartError: a file is there that was not made here, or one cannot be written.
        """
        self._folder = folder
        self._names = names
        self._now = now
        self._expires_at = self._make()
        self.pem = (folder / "ca.crt").read_bytes()
        """What whoever calls has to believe."""
        if copy is not None:
            try:
                write_file(copy, self.pem, mode=PUBLIC_MODE, replace=True)
            except OSError as exc:
                raise StartError(f"--ca-file: {copy} cannot be written: {exc.strerror}") from None

    @property
    def tls(self) -> TlsConfig:
        """The files, as a listener takes them."""
        return TlsConfig(cert=self._folder / "tls.crt", key=self._folder / "tls.key")

    def renew_if_due(self) -> bool:
        """Make another certificate if this one ends soon; say if so. Raises StartError."""
        if self._now() < self._expires_at - RENEW_SECONDS:
            return False
        self._expires_at = self._make()
        return True

    def _make(self) -> float:
        moment = dt.datetime.fromtimestamp(self._now(), dt.UTC)
        try:
            return key_tools.make_certificates(
                self._folder, self._names, now=moment
            ).expires_at.timestamp()
        except ValueError as rule:
            raise StartError(f"--for {', '.join(self._names)}: one of them {rule}") from None
        except KeyUnusableError as error:
            raise StartError(error.detail.replace("--out", "--state")) from None
        except OSError as exc:
            raise StartError(f"--state: {exc.filename} cannot be written: {exc.strerror}") from None


# Authorities in a bundle, of about 800 bytes each. The chart allows 20 replicas; in a rolling
# update one more serves, and those that end serve for some seconds longer.
ROOM = 64
FRONT = ROOM // 2


class ClientConfig(msgspec.Struct, rename="camel"):
    """How a webhook is called."""

    ca_bundle: str | None = None


class WebhookEntry(msgspec.Struct, rename="camel"):
    """One of them."""

    client_config: ClientConfig


class WebhookMetadata(msgspec.Struct, rename="camel"):
    """Which state of the object this is."""

    resource_version: str


class Configuration(msgspec.Struct):
    """What is looked at in a MutatingWebhookConfiguration."""

    metadata: WebhookMetadata
    webhooks: list[WebhookEntry] = []


def read_configuration(body: bytes) -> Configuration:
    """Read what the Kubernetes API gave.

    Raises:
        ClusterError: it is something else, or holds no webhook.
    """
    try:
        found = msgspec.json.decode(body, type=Configuration)
    except DECODE_ERRORS:
        raise ClusterError("the Kubernetes API gave no webhook configuration") from None
    if not found.webhooks:
        raise ClusterError("the webhook configuration has no webhooks")
    return found


def lacks(found: Configuration, own: bytes) -> bool:
    """Tell whether any webhook does not trust our authority (PEM)."""
    mine = x509.load_pem_x509_certificate(own)
    return any(mine not in _certificates(each) for each in found.webhooks)


def missing_from(found: Configuration, own: bytes, *, now: float) -> list[dict[str, Any]]:
    """Write the JSON patch that puts our authority (PEM) in front; empty if it is near the front.

    It fails, instead of undoing what somebody else did, if the object has changed meanwhile.
    """
    changes = [
        {"op": "add", "path": f"/webhooks/{at}/clientConfig/caBundle", "value": bundle}
        for at, webhook in enumerate(found.webhooks)
        if (bundle := _with(webhook, own, now=now)) is not None
    ]
    if not changes:
        return []
    version = found.metadata.resource_version
    return [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}, *changes]


def _with(webhook: WebhookEntry, own: bytes, *, now: float) -> str | None:
    there = _certificates(webhook)
    mine = x509.load_pem_x509_certificate(own)
    if mine in there[:FRONT]:
        return None
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    others = [
        each for each in there if each != mine and is_ours(each) and each.not_valid_after_utc > at
    ]
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in (mine, *others[: ROOM - 1]))
    return base64.b64encode(pem).decode()


def _certificates(webhook: WebhookEntry) -> list[x509.Certificate]:
    encoded = webhook.client_config.ca_bundle or ""
    try:
        return x509.load_pem_x509_certificates(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return []


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
