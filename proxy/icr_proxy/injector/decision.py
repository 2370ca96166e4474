"""The decision on one AdmissionReview request, and its JSON patch (RFC 6902); pure.

Whatever was not meant for us is allowed untouched. A pod that asks for a proxy and cannot get one
is refused, because an application that believes in one would run without; or passed, by choice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from icr_proxy import __version__
from icr_proxy.config import fields as of
from icr_proxy.injector.admission_review import AdmissionVerdict, ResourceKind
from icr_proxy.injector.annotations import INJECT, INJECTED, PREFIX, ours, read_wish
from icr_proxy.injector.pods import conflicts, read_pod, weaknesses
from icr_proxy.injector.sidecar import NAME, container, volumes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from icr_proxy.injector.admission_review import AdmissionRequest
    from icr_proxy.injector.annotations import Wish
    from icr_proxy.injector.pods import Manifest, Pod
    from icr_proxy.injector.sidecar import Defaults

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


POD = ResourceKind(group="", version="v1", kind="Pod")
FORBIDDEN, UNPROCESSABLE = 403, 422
NAME_MOST = 63  # characters of an annotation's name, without its prefix


def decide(request: AdmissionRequest, defaults: Defaults) -> AdmissionVerdict:
    """Decide about one request.

    Raises:
        BadRequestError: it speaks of a pod and holds none.
    """
    if request.kind != POD or request.sub_resource:
        what = f"{request.kind}{'/' if request.sub_resource else ''}{request.sub_resource}"
        return _untouched(f"icr-proxy: asked about {what}; only new pods are injected")
    if request.operation != "CREATE":
        return _untouched(f"icr-proxy: asked about {request.operation}; only CREATE is injected")
    pod = read_pod(request.object)
    return replace(_about(pod, request.namespace, defaults), pod=pod.called)


def _about(pod: Pod, namespace: str, defaults: Defaults) -> AdmissionVerdict:
    said = ours(pod.annotations)
    if INJECT not in said:
        return _not_asked(said)
    if defaults.leaves_alone(namespace):
        return _untouched(f"icr-proxy: nothing is injected in namespace {namespace}")
    if _says_no(said):
        return AdmissionVerdict(result="untouched")
    if _is_injected(pod, said):
        return AdmissionVerdict(result="already")
    return _inject(pod, said, defaults)


def _inject(pod: Pod, said: Mapping[str, str], defaults: Defaults) -> AdmissionVerdict:
    wish = read_wish(said, defaults)
    if isinstance(wish, tuple):
        return AdmissionVerdict(result="refused", code=UNPROCESSABLE, message=_sentence(wish))
    against = tuple(conflicts(pod, wish))
    if against and defaults.on_conflict == "refuse":
        return AdmissionVerdict(result="refused", code=FORBIDDEN, message=_sentence(against))
    if against:
        return AdmissionVerdict(
            result="passed", warnings=tuple(f"icr-proxy: not injected: {each}" for each in against)
        )
    return AdmissionVerdict(
        result="injected",
        patch=patch(pod, wish, defaults),
        warnings=tuple(f"icr-proxy: {each}" for each in weaknesses(pod, wish)),
    )


def _not_asked(said: Mapping[str, str]) -> AdmissionVerdict:
    wishes = sorted(set(said) - {INJECTED})
    if not wishes:
        return AdmissionVerdict(result="untouched")
    return _untouched(
        f'icr-proxy: {PREFIX}{wishes[0][:NAME_MOST]} does nothing without {PREFIX}inject: "true"'
    )


def _says_no(said: Mapping[str, str]) -> bool:
    """Tell whether the pod wants none; a word that is neither is complained of with the rest."""
    try:
        return not of.SWITCH.read(said[INJECT])
    except ValueError:
        return False


def _is_injected(pod: Pod, said: Mapping[str, str]) -> bool:
    """Both marks: a copied annotation alone is no proxy, a container alone may be anybody's."""
    return INJECTED in said and any(each.name == NAME for each in pod.everything)


def _untouched(warning: str) -> AdmissionVerdict:
    return AdmissionVerdict(result="untouched", warnings=(warning,))


def _sentence(problems: tuple[str, ...]) -> str:
    return f"icr-proxy: {'; '.join(problems)}"
