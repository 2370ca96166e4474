from __future__ import annotations

import pytest

from icr_proxy import __version__
from icr_proxy.injector.annotations import Wish, ours, read_wish
from icr_proxy.injector.decision import patch
from tests.support.pods import (
    ASKED,
    DEFAULTS,
    Manifest,
    applied,
    injected_pods,
    job_pod,
    parsed,
    pod,
)

PODS = injected_pods()


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
