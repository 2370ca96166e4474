"""The proxy's container and volumes in a pod, and the defaults of their settings.

It satisfies Pod Security "restricted". The key is a Secret that is mounted into this container
alone: the pod names it, and never holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from icr_proxy import __version__
from icr_proxy.config.value_types import Text
from icr_proxy.injector.annotations import CONFIG_FILE, CONFIG_FOLDER, KEYS_FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from icr_proxy.injector.annotations import Wish
    from icr_proxy.injector.pods import Manifest

NAME = "icr-proxy"
KEYS_VOLUME, CONFIG_VOLUME = "icr-proxy-keys", "icr-proxy-config"
# Kubernetes mounts the token of the pod's service account into every container that has no mount of
# its own there. The proxy needs none, so it gets an empty folder; the others keep theirs.
NO_TOKEN_VOLUME, TOKEN_FOLDER = (
    "icr-proxy-no-token",
    "/var/run/secrets/kubernetes.io/serviceaccount",
)
VOLUMES = (KEYS_VOLUME, CONFIG_VOLUME, NO_TOKEN_VOLUME)
NOBODY = 65532  # whom the image runs as
# The files are root's, and the pod may have no group of nobody's; no other container has the mount.
READABLE = 0o444
WAIT_SECONDS = 60

SECURITY: Mapping[str, object] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
    "runAsGroup": NOBODY,
    "runAsNonRoot": True,
    "runAsUser": NOBODY,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(wish: Wish, defaults: Defaults) -> Manifest:
    """Write the container."""
    resources = {"requests": defaults.requests, "limits": defaults.limits}
    made: Manifest = {
        "name": NAME,
        "image": wish.image,
        "imagePullPolicy": defaults.pull_policy,
        "args": ["run", "--config", CONFIG_FILE] if wish.config_map else ["run"],
        "env": [{"name": name, "value": _literal(value)} for name, value in wish.variables],
        "resources": {name: dict(amounts) for name, amounts in resources.items() if amounts},
        "securityContext": dict(SECURITY),
        "volumeMounts": [
            {"name": name, "mountPath": path, "readOnly": True} for name, path in _mounts(wish)
        ],
        "startupProbe": _probe(wish, "--ready", period=1, failures=WAIT_SECONDS),
        "livenessProbe": _probe(wish, period=20, failures=3),
    }
    if wish.admin_exposed:
        port = {"name": "icr-admin", "containerPort": wish.admin_port, "protocol": "TCP"}
        made["ports"] = [port]
    return made | _order(wish)


def _literal(value: str) -> str:
    """Keep Kubernetes from putting another variable's value where `$(NAME)` stands."""
    return value.replace("$(", "$$(")


def volumes(wish: Wish) -> list[Manifest]:
    """Write the volumes."""
    keys = {"secretName": wish.key_secret, "defaultMode": READABLE}
    made: list[Manifest] = [{"name": KEYS_VOLUME, "secret": keys}]
    if wish.config_map:
        made.append({"name": CONFIG_VOLUME, "configMap": {"name": wish.config_map}})
    made.append({"name": NO_TOKEN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    return made


def _mounts(wish: Wish) -> list[tuple[str, str]]:
    mounts = [(KEYS_VOLUME, KEYS_FOLDER)]
    if wish.config_map:
        mounts.append((CONFIG_VOLUME, CONFIG_FOLDER))
    mounts.append((NO_TOKEN_VOLUME, TOKEN_FOLDER))
    return mounts


def _probe(wish: Wish, *words: str, period: int, failures: int) -> Manifest:
    """Ask from inside: the kubelet does not reach the pod's loopback."""
    return {
        "exec": {"command": [NAME, "health", *words, "--admin", wish.admin]},
        "periodSeconds": period,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
    }


def _order(wish: Wish) -> Manifest:
    """Have what comes after it wait for it.

    Natively, Kubernetes waits for the start-up probe, and ends the proxy after the last container.
    Of plain containers, the kubelet starts one after the other, and waits only for this hook.
    """
    if wish.mode == "native":
        return {"restartPolicy": "Always"}
    command = [NAME, "wait", "--timeout", str(WAIT_SECONDS), "--admin", wish.admin]
    return {"lifecycle": {"postStart": {"exec": {"command": command}}}}


# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/, without signs
QUANTITY = Text(
    what="an amount",
    pattern=r"[0-9]+(\.[0-9]+)?([eE][0-9]+|m|k|[KMGTPE]i|[MGTPE])?",
    example="50m",
)
RESOURCES = ("cpu", "memory", "ephemeral-storage")

# Names that begin so are kept for Kubernetes itself, whose pods must start before any webhook can.
RESERVED = "kube-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """How pods are injected."""

    image: str = f"icr-proxy:{__version__}"
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    mode: Literal["native", "plain"] = "native"
    on_conflict: Literal["refuse", "pass"] = "refuse"
    app_id: str | None = None
    key_secret: str | None = None
    requests: Mapping[str, str] = field(default_factory=lambda: {"cpu": "50m", "memory": "96Mi"})
    limits: Mapping[str, str] = field(default_factory=lambda: {"cpu": "1", "memory": "256Mi"})
    excluded: frozenset[str] = frozenset()
    """Namespaces that are left alone, beside those of Kubernetes itself."""

    def leaves_alone(self, namespace: str) -> bool:
        """Tell whether nothing is ever injected there."""
        return namespace.startswith(RESERVED) or namespace in self.excluded


def read_amounts(text: str) -> dict[str, str]:
    """Read `cpu=50m,memory=96Mi`; nothing is none. Raises ValueError with the rule."""
    amounts = {}
    for each in filter(None, (part.strip() for part in text.split(","))):
        name, _, amount = each.partition("=")
        if name not in RESOURCES:
            raise ValueError(f"is not of the form cpu=50m,memory=96Mi ({', '.join(RESOURCES)})")
        amounts[name] = QUANTITY.read(amount)
    return amounts
