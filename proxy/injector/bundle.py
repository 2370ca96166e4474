"""The authorities that Kubernetes is told to believe when it calls the webhook.

Each injector has one of its own, and several may serve at once: replicas, or the old and the new
one during an update. So each adds its own to those that are there, and the oldest leave.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from proxy.errors import ClusterError
from proxy.localca import is_ours

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 8  # authorities in a bundle: more than replicas, few enough to read


class ClientConfig(msgspec.Struct, rename="camel"):
    """How a webhook is called."""

    ca_bundle: str | None = None


class Webhook(msgspec.Struct, rename="camel"):
    """One of them."""

    client_config: ClientConfig


class Metadata(msgspec.Struct, rename="camel"):
    """Which state of the object this is."""

    resource_version: str


class Configuration(msgspec.Struct):
    """What is looked at in a MutatingWebhookConfiguration."""

    metadata: Metadata
    webhooks: list[Webhook] = []


def read_configuration(body: bytes) -> Configuration:
    """Read what the Kubernetes API gave.

    Raises:
        ClusterError: it is something else, or holds no webhook.
    """
    try:
        found = msgspec.json.decode(body, type=Configuration)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ClusterError("the Kubernetes API gave no webhook configuration") from None
    if not found.webhooks:
        raise ClusterError("the webhook configuration has no webhooks")
    return found


def missing_from(found: Configuration, own: bytes, *, now: float) -> list[dict[str, Any]]:
    """Write the JSON patch that adds our authority (PEM) wherever it is missing; empty if nowhere.

    It fails, instead of undoing what somebody else did, if the object has changed meanwhile.
    """
    changes = [
        {"op": "add", "path": f"/webhooks/{at}/clientConfig/caBundle", "value": bundle}
        for at, webhook in enumerate(found.webhooks)
        if (bundle := _with(webhook.client_config.ca_bundle or "", own, now=now)) is not None
    ]
    if not changes:
        return []
    version = found.metadata.resource_version
    return [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}, *changes]


def _with(encoded: str, own: bytes, *, now: float) -> str | None:
    there = list(_living(encoded, now=now))
    mine = x509.load_pem_x509_certificate(own)
    if mine in there:
        return None
    there.sort(key=lambda each: each.not_valid_before_utc, reverse=True)
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in (mine, *there[: MOST - 1]))
    return base64.b64encode(pem).decode()


def _living(encoded: str, *, now: float) -> Iterator[x509.Certificate]:
    """Read the authorities that were made by injectors and are not over."""
    try:
        found = x509.load_pem_x509_certificates(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    yield from (each for each in found if is_ours(each) and each.not_valid_after_utc > at)
