"""What becomes of one request to Kubernetes: an AdmissionReview's request in, a verdict out.

Whatever was not meant for us is allowed untouched. A pod that asks for a proxy and cannot get one
is refused, because an application that believes in one would run without; or passed, by choice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from icr_proxy.config import fields as of
from icr_proxy.injector.admission_review import Kind, Verdict
from icr_proxy.injector.annotations import INJECT, INJECTED, PREFIX, ours, read_wish
from icr_proxy.injector.conflicts import conflicts, weaknesses
from icr_proxy.injector.patching import patch
from icr_proxy.injector.pods import read_pod
from icr_proxy.injector.sidecar import NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from icr_proxy.injector.admission_review import Request
    from icr_proxy.injector.defaults import Defaults
    from icr_proxy.injector.pods import Pod

POD = Kind(group="", version="v1", kind="Pod")
FORBIDDEN, UNPROCESSABLE = 403, 422
NAME_MOST = 63  # characters of an annotation's name, without its prefix


def decide(request: Request, defaults: Defaults) -> Verdict:
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


def _about(pod: Pod, namespace: str, defaults: Defaults) -> Verdict:
    said = ours(pod.annotations)
    if INJECT not in said:
        return _not_asked(said)
    if defaults.leaves_alone(namespace):
        return _untouched(f"icr-proxy: nothing is injected in namespace {namespace}")
    if _says_no(said):
        return Verdict(result="untouched")
    if _is_injected(pod, said):
        return Verdict(result="already")
    return _inject(pod, said, defaults)


def _inject(pod: Pod, said: Mapping[str, str], defaults: Defaults) -> Verdict:
    wish = read_wish(said, defaults)
    if isinstance(wish, tuple):
        return Verdict(result="refused", code=UNPROCESSABLE, message=_sentence(wish))
    against = tuple(conflicts(pod, wish))
    if against and defaults.on_conflict == "refuse":
        return Verdict(result="refused", code=FORBIDDEN, message=_sentence(against))
    if against:
        return Verdict(
            result="passed", warnings=tuple(f"icr-proxy: not injected: {each}" for each in against)
        )
    return Verdict(
        result="injected",
        patch=patch(pod, wish, defaults),
        warnings=tuple(f"icr-proxy: {each}" for each in weaknesses(pod, wish)),
    )


def _not_asked(said: Mapping[str, str]) -> Verdict:
    wishes = sorted(set(said) - {INJECTED})
    if not wishes:
        return Verdict(result="untouched")
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


def _untouched(warning: str) -> Verdict:
    return Verdict(result="untouched", warnings=(warning,))


def _sentence(problems: tuple[str, ...]) -> str:
    return f"icr-proxy: {'; '.join(problems)}"
