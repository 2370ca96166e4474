"""What is looked at in a pod, and nothing else of it."""

from __future__ import annotations

from typing import Any

import msgspec

from icr_proxy.errors import BadRequestError


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


class Metadata(msgspec.Struct, rename="camel"):
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

    metadata: Metadata
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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadRequestError("the object of the review is not a pod") from None
    if not pod.spec.containers:
        raise BadRequestError("the pod of the review has no containers")
    return pod


Manifest = dict[str, Any]
