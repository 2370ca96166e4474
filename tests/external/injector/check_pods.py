"""What Kubernetes says of pods that were injected: `.ci/run` runs this, not `make test`."""

from __future__ import annotations

import json
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from icr_proxy.injector.admission_review import read_request
from icr_proxy.injector.decision import decide
from tests.support.pods import DEFAULTS, applied, injected_pods, review

PODS = injected_pods()
# The oldest with native sidecars, and the newest of which schemas are known.
KUBERNETES = ("1.29.0", "1.37.0")


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", PODS)
def test_kubernetes_takes_an_injected_pod(name: str, version: str) -> None:
    verdict = decide(read_request(json.dumps(review(PODS[name])).encode()), DEFAULTS)

    injected = applied(PODS[name], verdict.patch)

    assert verdict.result == "injected"
    kubernetes_validate.validate(injected, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
def test_a_mistake_would_be_found(version: str) -> None:
    """The check of the check."""
    verdict = decide(read_request(json.dumps(review(PODS["job"])).encode()), DEFAULTS)
    injected = applied(PODS["job"], verdict.patch)

    injected["spec"]["initContainers"][0]["readOnly"] = True

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(injected, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_the_example(version: str) -> None:
    example = Path(__file__).parents[3] / "config" / "injector.yaml"
    manifests = list(yaml.safe_load_all(example.read_text()))

    for each in manifests:
        kubernetes_validate.validate(each, version, strict=True)
    assert len(manifests) == 7
