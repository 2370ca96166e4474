from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy import __version__
from icr_proxy.errors import BadRequestError
from icr_proxy.injector.admission_review import AdmissionVerdict, read_request
from icr_proxy.injector.annotations import ANNOTATIONS, Wish, ours, read_wish
from icr_proxy.injector.decision import decide, patch
from icr_proxy.injector.sidecar import Defaults
from tests.support.pods import (
    ASKED,
    DEFAULTS,
    Manifest,
    applied,
    injected_pods,
    job_pod,
    parsed,
    pod,
    review,
)

PODS = injected_pods()
PASSING = replace(DEFAULTS, on_conflict="pass")
CROWDED = pod(ASKED, containers=[{"name": "web", "ports": [{"containerPort": 8080}]}])


def about(manifest: object, defaults: Defaults = DEFAULTS, **request: Any) -> AdmissionVerdict:
    return decide(read_request(json.dumps(review(manifest, **request)).encode()), defaults)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_that_asks_gets_a_proxy(name: str) -> None:
    verdict = about(PODS[name])

    assert verdict.result == "injected"
    assert verdict.allowed
    assert verdict.patch


@pytest.mark.parametrize("name", PODS)
def test_a_second_time_nothing_happens(name: str) -> None:
    """Webhooks are invoked again when another one changed the pod."""
    after = applied(PODS[name], about(PODS[name]).patch)

    assert about(after) == AdmissionVerdict(
        result="already", pod="retire-" if "job" in name else "web-5d8f7c-"
    )


def test_a_copied_mark_is_no_proxy() -> None:
    """A manifest that was exported from a running pod, with the containers cleaned away."""
    assert about(pod(ASKED | {"injected": "0.0.1"})).result == "injected"


@pytest.mark.parametrize(
    "manifest",
    [
        pytest.param(pod(), id="no-annotations"),
        pytest.param(pod({"inject": "false"}), id="no"),
        pytest.param(pod({"inject": "false", "port": "1"}), id="no-with-mistakes"),
        pytest.param(pod({"injected": "0.1.0"}), id="only-the-mark"),
        pytest.param(pod({"restart": "5a5a"}), id="the-chart's-own"),
    ],
)
def test_a_pod_that_does_not_ask_is_left_alone(manifest: Manifest) -> None:
    assert about(manifest) == AdmissionVerdict(result="untouched", pod="web-5d8f7c-")


@pytest.mark.parametrize("name", ["port", "installation", "inyect"])
def test_wishes_without_the_one_that_matters_are_warned_of(name: str) -> None:
    verdict = about(pod({name: "true"}))

    assert verdict.result == "untouched"
    assert verdict.warnings == (
        f'icr-proxy: icr-proxy/{name} does nothing without icr-proxy/inject: "true"',
    )


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "ours"])
def test_excluded_namespaces_are_never_touched(namespace: str) -> None:
    defaults = replace(DEFAULTS, excluded=frozenset({"ours"}))

    verdict = about(pod(ASKED), defaults, namespace=namespace)

    assert verdict.result == "untouched"
    assert verdict.warnings == (f"icr-proxy: nothing is injected in namespace {namespace}",)


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        ({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}}, "apps/v1/Deployment"),
        ({"kind": {"group": "", "version": "v2", "kind": "Pod"}}, "v2/Pod"),
        ({"kind": {}}, ""),
        ({"subResource": "ephemeralcontainers"}, "v1/Pod/ephemeralcontainers"),
        ({"operation": "UPDATE"}, "UPDATE"),
        ({"operation": "DELETE", "object": None}, "DELETE"),
    ],
)
def test_what_was_not_meant_for_us_is_allowed_untouched(
    request_: dict[str, Any], what: str
) -> None:
    verdict = about(pod(ASKED), **request_)

    assert (verdict.result, verdict.patch) == ("untouched", ())
    assert verdict.warnings[0].startswith(f"icr-proxy: asked about {what}; only ")


def test_a_bad_annotation_is_refused_whatever_becomes_of_conflicts() -> None:
    verdict = about(pod(ASKED | {"port": "80"}), PASSING)

    assert (verdict.allowed, verdict.code) == (False, 422)
    assert verdict.message == 'icr-proxy: icr-proxy/port: "80" is not between 1024 and 65535'


def test_a_word_that_is_neither_yes_nor_no_is_not_taken_for_a_no() -> None:
    verdict = about(pod({"inject": "maybe"}))

    assert verdict.code == 422
    assert verdict.message == 'icr-proxy: icr-proxy/inject: "maybe" is neither true nor false'


def test_a_pod_without_room_is_refused() -> None:
    verdict = about(CROWDED)

    assert (verdict.allowed, verdict.code, verdict.patch) == (False, 403, ())
    assert str(verdict.message).startswith("icr-proxy: container web has port 8080")


def test_or_passed_without_a_proxy_and_with_a_warning_by_choice() -> None:
    verdict = about(CROWDED, PASSING)

    assert (verdict.result, verdict.allowed, verdict.patch) == ("passed", True, ())
    assert verdict.warnings[0].startswith("icr-proxy: not injected: container web has port 8080")


def test_weaknesses_are_warned_of() -> None:
    verdict = about(pod(ASKED, shareProcessNamespace=True))

    assert verdict.result == "injected"
    assert verdict.warnings[0].startswith("icr-proxy: shareProcessNamespace: ")


def test_a_dry_run_is_decided_like_any_other() -> None:
    assert about(pod(ASKED), dryRun=True) == about(pod(ASKED))


@pytest.mark.parametrize("nothing", [None, {}, [], "pod"])
def test_a_pod_that_is_none_is_a_bad_request(nothing: object) -> None:
    with pytest.raises(BadRequestError):
        about(nothing)


# -- whatever is asked ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["web", "icr-proxy", "work", "icr-proxy-keys", "icr-proxy-no-token", "~/", ""]
)
ANNOTATION = st.sampled_from([f"icr-proxy/{name}" for name in (*ANNOTATIONS, "nope")] + ["other"])
TEXT = st.sampled_from(["true", "false", "8081", "native", "plain", "a", "60s", ""]) | st.text()
PORTS = st.lists(
    st.fixed_dictionaries(
        {"containerPort": st.sampled_from([80, 8080, 9090])},
        optional={"protocol": st.sampled_from(["TCP", "UDP"])},
    ),
    max_size=2,
)
CONTAINER = st.fixed_dictionaries({"name": NAMES}, optional={"ports": st.none() | PORTS})
POD = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"annotations": st.dictionaries(ANNOTATION, TEXT, max_size=4)},
            optional={"name": NAMES},
        ),
        "spec": st.fixed_dictionaries(
            {"containers": st.lists(CONTAINER, min_size=1, max_size=2)},
            optional={
                "initContainers": st.none() | st.lists(CONTAINER, max_size=2),
                "volumes": st.none() | st.lists(st.fixed_dictionaries({"name": NAMES}), max_size=2),
                "hostNetwork": st.booleans(),
            },
        ),
    }
)


@given(manifest=JSON, spec=JSON, request_=JSON)
def test_nothing_that_is_asked_is_a_crash(manifest: object, spec: object, request_: object) -> None:
    for wrong in (
        review(manifest),
        review({"metadata": {"annotations": {"icr-proxy/inject": "true"}}, "spec": spec}),
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request_},
    ):
        with suppress(BadRequestError):
            decide(read_request(json.dumps(wrong).encode()), DEFAULTS)


@given(manifest=POD, on_conflict=st.sampled_from(["refuse", "pass"]))
def test_what_is_injected_keeps_all_it_had_and_is_not_injected_again(
    manifest: Manifest, on_conflict: Literal["refuse", "pass"]
) -> None:
    defaults = replace(DEFAULTS, on_conflict=on_conflict)

    verdict = about(manifest, defaults)
    after = applied(manifest, verdict.patch)

    assert bool(verdict.patch) == (verdict.result == "injected")
    assert verdict.allowed or verdict.message
    for kind in ("containers", "initContainers", "volumes"):
        had = manifest["spec"].get(kind) or []
        assert [each for each in after["spec"].get(kind) or [] if each in had] == had
    if verdict.patch:
        assert about(after, defaults).result == "already"


def result_of(manifest: Manifest) -> Manifest:
    found = parsed(manifest)
    wish = read_wish(ours(found.annotations), DEFAULTS)
    assert isinstance(wish, Wish), wish
    return applied(manifest, patch(found, wish, DEFAULTS))


def names(items: list[Manifest]) -> list[str]:
    return [each["name"] for each in items]


def test_natively_it_is_the_first_init_container() -> None:
    result = result_of(job_pod(ASKED))

    assert names(result["spec"]["initContainers"]) == ["icr-proxy", "fetch"]
    assert names(result["spec"]["containers"]) == ["retire"]


def test_plainly_it_is_the_first_container_and_not_the_one_that_kubectl_means() -> None:
    result = result_of(pod(ASKED | {"mode": "plain"}))

    assert names(result["spec"]["containers"]) == ["icr-proxy", "web"]
    assert "initContainers" not in result["spec"]
    annotations = result["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/default-container"] == "web"


def test_who_said_which_container_kubectl_means_is_not_overruled() -> None:
    manifest = pod(ASKED | {"mode": "plain"})
    manifest["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] = "other"

    annotations = result_of(manifest)["metadata"]["annotations"]

    assert annotations["kubectl.kubernetes.io/default-container"] == "other"


def test_volumes_that_are_there_stay() -> None:
    found = names(result_of(job_pod(ASKED))["spec"]["volumes"])

    assert found == ["work", "icr-proxy-keys", "icr-proxy-no-token"]


@pytest.mark.parametrize("nothing", [None, []], ids=["null", "empty"])
def test_lists_without_items_are_as_good_as_none(nothing: list[object] | None) -> None:
    result = result_of(pod(ASKED, initContainers=nothing, volumes=nothing))

    assert names(result["spec"]["initContainers"]) == ["icr-proxy"]
    assert names(result["spec"]["volumes"]) == ["icr-proxy-keys", "icr-proxy-no-token"]


@pytest.mark.parametrize("name", PODS)
def test_nothing_that_was_there_is_changed(name: str) -> None:
    before, after = PODS[name], result_of(PODS[name])

    assert set(before["metadata"]["annotations"].items()) <= set(
        after["metadata"]["annotations"].items()
    )
    for kind in ("containers", "initContainers", "volumes"):
        kept = [each for each in after["spec"].get(kind) or () if "icr-proxy" not in each["name"]]
        assert kept == (before["spec"].get(kind) or [])
    added = {"containers", "initContainers", "volumes"}
    assert {k: v for k, v in after["spec"].items() if k not in added} == {
        k: v for k, v in before["spec"].items() if k not in added
    }


def test_what_was_done_is_marked() -> None:
    annotations = result_of(pod(ASKED))["metadata"]["annotations"]

    assert annotations["icr-proxy/injected"] == __version__
