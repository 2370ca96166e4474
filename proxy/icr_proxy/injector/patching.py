"""A sidecar becomes a JSON patch (RFC 6902) of the pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy import __version__
from icr_proxy.injector.annotations import INJECTED, PREFIX
from icr_proxy.injector.sidecar import container, volumes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from icr_proxy.injector.annotations import Wish
    from icr_proxy.injector.defaults import Defaults
    from icr_proxy.injector.pods import Manifest, Pod

# Which container `kubectl logs` and `exec` mean; otherwise the first, which is now the proxy.
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def patch(pod: Pod, wish: Wish, defaults: Defaults) -> tuple[Manifest, ...]:
    """Write the operations. The pod has annotations, or it would not have asked for a proxy."""
    spec, made = pod.spec, container(wish, defaults)
    if wish.mode == "native":
        where, there = "/spec/initContainers", spec.init_containers
    else:
        where, there = "/spec/containers", spec.containers
    return (
        # First, so that everything else starts after it.
        *_inserted(where, [made], there=bool(there), at="0"),
        *_inserted("/spec/volumes", volumes(wish), there=bool(spec.volumes), at="-"),
        *_annotated(pod, wish),
    )


def _inserted(where: str, items: Sequence[Manifest], *, there: bool, at: str) -> Iterator[Manifest]:
    if not there:  # absent, null, or empty: `add` puts the whole list in its place
        yield {"op": "add", "path": where, "value": list(items)}
        return
    for item in items:
        yield {"op": "add", "path": f"{where}/{at}", "value": item}


def _annotated(pod: Pod, wish: Wish) -> Iterator[Manifest]:
    yield _annotation(f"{PREFIX}{INJECTED}", __version__)
    first = pod.spec.containers[0].name
    if wish.mode == "plain" and first and DEFAULT_CONTAINER not in pod.annotations:
        yield _annotation(DEFAULT_CONTAINER, first)


def _annotation(name: str, value: str) -> Manifest:
    pointer = name.replace("~", "~0").replace("/", "~1")  # RFC 6901, 3
    return {"op": "add", "path": f"/metadata/annotations/{pointer}", "value": value}
