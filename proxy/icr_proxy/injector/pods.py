"""What is read of a pod, and what in it prevents or weakens an injected proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from icr_proxy.errors import DECODE_ERRORS, BadRequestError
from icr_proxy.injector.sidecar import NAME, VOLUMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from icr_proxy.injector.annotations import Wish


class Port(msgspec.Struct, rename="camel"):
    """A port that a container says it has."""

    container_port: int | None = None
    protocol: str | None = None


class Named(msgspec.Struct):
    """Something with a name."""

    name: str | None = None


class Container(msgspec.Struct):
    """A container, or an init container."""

    name: str | None = None
    ports: list[Port] | None = None


class Owner(msgspec.Struct):
    """What made the pod."""

    kind: str | None = None


class PodMetadata(msgspec.Struct, rename="camel"):
    """Names, and what users say."""

    name: str | None = None
    generate_name: str | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None


class Spec(msgspec.Struct, rename="camel"):
    """What runs, and how."""

    containers: list[Container]
    init_containers: list[Container] | None = None
    volumes: list[Named] | None = None
    host_network: bool | None = None
    share_process_namespace: bool | None = None
    restart_policy: str | None = None
    os: Named | None = None


class Pod(msgspec.Struct):
    """A pod about to be made."""

    metadata: PodMetadata
    spec: Spec

    @property
    def annotations(self) -> dict[str, str]:
        """All of them."""
        return self.metadata.annotations or {}

    @property
    def everything(self) -> list[Container]:
        """Containers of both kinds."""
        return [*(self.spec.init_containers or ()), *self.spec.containers]

    @property
    def is_of_job(self) -> bool:
        """Whether it is meant to end by itself."""
        owners = self.metadata.owner_references or ()
        return any(owner.kind == "Job" for owner in owners) or self.spec.restart_policy in (
            "Never",
            "OnFailure",
        )

    @property
    def called(self) -> str:
        """Its name, or how that will begin."""
        return self.metadata.name or self.metadata.generate_name or ""


def read_pod(raw: msgspec.Raw) -> Pod:
    """Read the object of a review.

    Raises:
        BadRequestError: it is no pod, or one without containers, which none can be.
    """
    try:
        pod = msgspec.json.decode(raw, type=Pod)
    except DECODE_ERRORS:
        raise BadRequestError("the object of the review is not a pod") from None
    if not pod.spec.containers:
        raise BadRequestError("the pod of the review has no containers")
    return pod


Manifest = dict[str, Any]


def conflicts(pod: Pod, wish: Wish) -> Iterator[str]:
    """Say why the proxy cannot be added; nothing if it can."""
    spec = pod.spec
    if spec.host_network:
        yield (
            "the pod has hostNetwork: the proxy's loopback would be the node's, and whoever is on"
            " the node could act as the installation"
        )
    if spec.os is not None and spec.os.name == "windows":
        yield "the pod is for Windows, for which there is no image of the proxy"
    if any(each.name == NAME for each in pod.everything):
        yield f"the pod has a container {NAME} of its own; rename it, or do without injection"
    yield from _ports(pod, wish)
    for each in spec.volumes or ():
        if each.name in VOLUMES:
            yield f"the pod has a volume {each.name} of its own; rename it"


def _ports(pod: Pod, wish: Wish) -> Iterator[str]:
    wanted = {wish.port: "port", wish.admin_port: "admin-port"}
    for each in pod.everything:
        for port in each.ports or ():
            number = port.container_port
            if number is not None and number in wanted and port.protocol in (None, "", "TCP"):
                yield (
                    f"container {each.name} has port {number}, which the proxy wants; choose"
                    f" another one for it with icr-proxy/{wanted[number]}"
                )


def weaknesses(pod: Pod, wish: Wish) -> Iterator[str]:
    """Say what works, but not as somebody might think."""
    if pod.spec.share_process_namespace:
        yield (
            "shareProcessNamespace: containers that run as 65532 or as root can read the proxy's"
            " files, the app's private key among them, through /proc"
        )
    if wish.mode == "plain" and pod.is_of_job:
        yield (
            "a plain sidecar does not end with the job's own container; let that POST to"
            f" http://{wish.admin}/quit at its end, or use icr-proxy/mode: native"
        )
