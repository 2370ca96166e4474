"""The CA bundle of the webhook: the authorities that the API server trusts when it calls it.

Each injector has an authority of its own, whose key never leaves its pod, and adds it to those that
are there. So the bundle is a list in order of use: what is added, or renews its place, goes to the
front, and what is beyond the last place is dropped. An injector renews its place when it has moved
into the second half, so a living one is never dropped, as long as all of them fit into the first
half. Those of pods that have ended move back and leave.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from icr_proxy.credentials.key_tools import is_ours
from icr_proxy.errors import ClusterError

# Authorities in a bundle, of about 800 bytes each. The chart allows 20 replicas; in a rolling
# update one more serves, and those that end serve for some seconds longer.
ROOM = 64
FRONT = ROOM // 2


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


def _with(webhook: Webhook, own: bytes, *, now: float) -> str | None:
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


def _certificates(webhook: Webhook) -> list[x509.Certificate]:
    encoded = webhook.client_config.ca_bundle or ""
    try:
        return x509.load_pem_x509_certificates(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return []
