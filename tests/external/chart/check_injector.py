"""The injector as the chart sets it up, and that the program takes what it is given."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from icr_proxy.injector.authority import FRONT, ROOM
from tests.external.chart.rendering import (
    ROOT,
    Manifest,
    helm4,
    only,
    pod_of,
    values_of,
    with_dependency,
)
from tests.support.program import Program, start

MOST = 20  # injectors
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "reports-", "annotations": {"icr-proxy/inject": "true"}},
    "spec": {"containers": [{"name": "reports", "image": "registry.example/reports:1"}]},
}


@pytest.fixture(scope="module")
def own() -> list[Manifest]:
    """Give what is rendered where the injector makes its own certificate."""
    return helm4(values_of("injector"))


@pytest.fixture(scope="module")
def by_cert_manager() -> list[Manifest]:
    return helm4(values_of("injector-cert-manager"))


def flags(manifests: list[Manifest]) -> dict[str, str]:
    [container] = pod_of(only(manifests, "Deployment"))["containers"]
    return dict(word.partition("=")[::2] for word in container["args"][1:])


def webhook(manifests: list[Manifest]) -> Manifest:
    [found] = only(manifests, "MutatingWebhookConfiguration")["webhooks"]
    return dict(found)


def test_it_may_change_its_own_webhook_and_nothing_else(own: list[Manifest]) -> None:
    name = only(own, "MutatingWebhookConfiguration")["metadata"]["name"]

    assert only(own, "ClusterRole")["rules"] == [
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [name],
            "verbs": ["get", "patch"],
        }
    ]
    [subject] = only(own, "ClusterRoleBinding")["subjects"]
    pod = pod_of(only(own, "Deployment"))
    assert subject["name"] == pod["serviceAccountName"]
    assert pod["automountServiceAccountToken"] is True
    assert flags(own)["--patch-webhook"] == name


def test_its_certificate_is_for_the_name_by_which_it_is_called(own: list[Manifest]) -> None:
    service = webhook(own)["clientConfig"]["service"]

    assert flags(own)["--for"] == f"{service['name']}.{service['namespace']}.svc"
    assert only(own, "Service")["metadata"]["name"] == service["name"]
    assert only(own, "Service")["spec"]["ports"][0]["port"] == service["port"]


def test_with_cert_manager_it_has_no_rights_and_no_token(by_cert_manager: list[Manifest]) -> None:
    pod = pod_of(only(by_cert_manager, "Deployment"))
    certificate = only(by_cert_manager, "Certificate")
    configuration = only(by_cert_manager, "MutatingWebhookConfiguration")

    assert pod["automountServiceAccountToken"] is False
    assert not {"ClusterRole", "ClusterRoleBinding"} & {each["kind"] for each in by_cert_manager}
    assert pod["volumes"][0]["secret"]["secretName"] == certificate["spec"]["secretName"]
    assert configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == (
        f"n/{certificate['metadata']['name']}"
    )
    assert certificate["spec"]["dnsNames"] == ["r-icr-proxy.n.svc"]


def test_its_webhook_is_that_of_the_example_for_kubectl(own: list[Manifest]) -> None:
    """Which fails closed, and is asked about pods that ask for a proxy and no others."""
    documents = yaml.safe_load_all((ROOT / "config" / "injector.yaml").read_text())
    [example] = [each for each in documents if each["kind"] == "MutatingWebhookConfiguration"]
    [expected] = example["webhooks"]
    found = webhook(own)

    for each in (found, expected):
        del each["clientConfig"]["service"]["name"], each["clientConfig"]["service"]["namespace"]
    assert found == expected
    assert found["failurePolicy"] == "Fail"
    assert found["matchConditions"]


def test_it_makes_nothing_of_a_gateway(own: list[Manifest]) -> None:
    kinds = [each["kind"] for each in own]

    assert sorted(kinds) == [
        "ClusterRole", "ClusterRoleBinding", "Deployment", "MutatingWebhookConfiguration",
        "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount",
    ]  # fmt: skip


def test_it_listens_on_both_families_whatever_the_cluster_has(own: list[Manifest]) -> None:
    assert flags(own)["--listen"] == "*:8443"


def egress(**values: Any) -> list[Manifest]:
    rules: list[Manifest] = only(helm4(values), "NetworkPolicy")["spec"]["egress"]
    return rules


def test_it_reaches_the_kubernetes_api_at_the_ports_that_clusters_have() -> None:
    [api] = egress(**values_of("injector"))

    assert [each["port"] for each in api["ports"]] == [443, 6443, 8443, 16443]


@pytest.mark.parametrize("case", ["injector", "injector-cert-manager"])
def test_further_ways_out_are_those_of_the_values(case: str) -> None:
    rule = {"ports": [{"protocol": "TCP", "port": 7443}]}

    rules = egress(**values_of(case), networkPolicy={"extraEgress": [rule]})

    assert rules[-1] == rule
    assert len(rules) == (2 if case == "injector" else 1)


def test_with_cert_manager_it_reaches_nothing() -> None:
    assert egress(**values_of("injector-cert-manager")) == []


def test_more_injectors_than_the_bundle_has_room_for_are_refused() -> None:
    """Old and new pods together, and some that have ended, must fit (`injector/authority`)."""
    values = values_of("injector")

    assert only(helm4({**values, "replicas": MOST}), "Deployment")["spec"]["replicas"] == MOST
    with pytest.raises(helm_python.HelmValuesError, match="replicas"):
        helm4({**values, "replicas": MOST + 1})
    assert 2 * MOST <= ROOM
    assert MOST < FRONT
    assert helm4({**values_of("default"), "replicas": MOST + 1})


def review(pod: dict[str, Any]) -> bytes:
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "carbon",
        "operation": "CREATE",
        "object": pod,
    }
    kind = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
    return json.dumps(kind | {"request": request}).encode()


def asked(url: str, body: bytes, *, ca: str) -> dict[str, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    trust = ssl.create_default_context(cadata=ca)
    with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


async def test_it_injects_the_sidecar_of_the_chart(own: list[Manifest], tmp_path: Path) -> None:
    """With its arguments of the chart, but for where it is and the cluster that is not there."""
    local = flags(own) | {"--listen": "127.0.0.1:0", "--for": "localhost"}
    del local["--patch-webhook"]
    local["--state"] = str(tmp_path / "authority")
    words = [f"{name}={text}" if text else name for name, text in local.items()]
    clean = {name: it for name, it in os.environ.items() if not name.startswith("ICR_")}

    process = await start(["injector", *words], clean)
    try:
        ready = await Program(process).until("injector.ready")
        port = ready["listener"].rpartition(":")[2]
        url = f"https://localhost:{port}/mutate"
        answer = await asyncio.to_thread(asked, url, review(POD), ca=ready["ca"])
    finally:
        process.terminate()
        await process.communicate()

    assert answer["response"]["allowed"] is True
    injected = _container(answer["response"]["patch"])
    chart = pod_of(only(helm4({}, chart=with_dependency(tmp_path)), "Job"))["initContainers"][0]
    of_the_configuration = {"args", "env", "volumeMounts"}
    assert _without(injected, of_the_configuration) == _without(chart, of_the_configuration)


def _container(patch: str) -> Manifest:
    """Find the container in a JSON patch, wherever in the pod it is put."""
    changes = json.loads(base64.b64decode(patch))
    values = [change["value"] for change in changes if "initContainers" in change["path"]]
    [found] = values[0] if isinstance(values[0], list) else values
    return dict(found)


def _without(container: Manifest, names: set[str]) -> Manifest:
    return {name: each for name, each in container.items() if name not in names}
