"""The sidecar in other people's pods, by Helm and by Kustomize."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from tests.external.chart.rendering import (
    HERE,
    Manifest,
    helm3,
    helm4,
    kustomized,
    only,
    pod_of,
    with_dependency,
)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return with_dependency(tmp_path)


def sidecar(pod: Manifest) -> Manifest:
    found: list[Manifest] = [e for e in pod["initContainers"] if e["name"] == "icr-proxy"]
    assert len(found) == 1
    return found[0]


def volumes(pod: Manifest) -> dict[str, Any]:
    return {each["name"]: each for each in pod["volumes"]}


def test_both_helms_render_the_same_application(app: Path) -> None:
    assert helm3(app / "values.yaml", chart=app) == helm4({}, chart=app)


def test_the_chart_in_sidecar_mode_makes_only_a_config_map(app: Path) -> None:
    made = [(each["kind"], each["metadata"]["name"]) for each in helm4({}, chart=app)]

    assert made == [("ConfigMap", "r-icr-proxy"), ("Deployment", "r-reports"), ("Job", "r-import")]


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_the_application_starts_after_the_proxy_and_jobs_end(app: Path, kind: str) -> None:
    """An init container that restarts always is ended by the kubelet when the others are done."""
    found = sidecar(pod_of(only(helm4({}, chart=app), kind)))

    assert found["restartPolicy"] == "Always"
    assert found["startupProbe"]["exec"]["command"][:3] == ["icr-proxy", "health", "--ready"]
    assert "readinessProbe" not in found


def test_it_stands_before_the_pods_own_init_containers(app: Path) -> None:
    pod = pod_of(only(helm4({}, chart=app), "Job"))

    assert [each["name"] for each in pod["initContainers"]] == ["icr-proxy", "fetch"]
    of_the_proxy = {"icr-proxy-config", "icr-proxy-keys", "icr-proxy-no-token"}
    assert set(volumes(pod)) == of_the_proxy | {"scratch"}


def test_it_has_no_token_of_the_pods_service_account_and_the_others_keep_theirs(app: Path) -> None:
    """Kubernetes mounts it into every container that has no mount of its own at this path."""
    everything = [*helm4({}, chart=app), *kustomized(HERE / "kustomize")]
    found = [
        pod_of(each)
        for each in everything
        if each["kind"] in ("Deployment", "Job", "CronJob")
        and each["metadata"]["name"] != "unrelated"
    ]

    assert len(found) == 5
    for pod in found:
        mounts = {each["mountPath"]: each for each in sidecar(pod)["volumeMounts"]}
        mount = mounts["/var/run/secrets/kubernetes.io/serviceaccount"]
        assert mount["readOnly"] is True
        assert volumes(pod)[mount["name"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Mi"}
        assert "automountServiceAccountToken" not in pod


def test_it_mounts_the_config_map_that_was_made_and_nobody_else_mounts_the_key(app: Path) -> None:
    manifests = helm4({}, chart=app)
    pod = pod_of(only(manifests, "Deployment"))

    made = only(manifests, "ConfigMap")["metadata"]["name"]
    assert volumes(pod)["icr-proxy-config"]["configMap"]["name"] == made
    assert all("volumeMounts" not in each for each in pod["containers"])


@pytest.mark.parametrize("bind", ["*:9191", "0.0.0.0:9191", "[::]:9191"])
def test_another_port_for_the_console_moves_the_probes(app: Path, bind: str) -> None:
    own = yaml.safe_load((app / "values.yaml").read_text())
    own["icr-proxy"]["config"]["admin"] = {"bind": bind}

    found = sidecar(pod_of(only(helm4(own, chart=app), "Job")))

    assert found["startupProbe"]["httpGet"] == {"path": "/startupz", "port": "admin"}
    assert found["ports"] == [{"name": "admin", "containerPort": 9191, "protocol": "TCP"}]


def test_the_checksum_changes_only_with_what_needs_a_restart(app: Path) -> None:
    own = yaml.safe_load((app / "values.yaml").read_text())

    def checksum(**config: object) -> str:
        own["icr-proxy"]["config"] |= config
        deployment = only(helm4(own, chart=app), "Deployment")
        text: str = deployment["spec"]["template"]["metadata"]["annotations"]["icr-proxy/restart"]
        return text

    assert checksum() == checksum(policy={"read_only": True})
    assert checksum() != checksum(limits={"uri": "16KiB"})


def test_an_application_that_forgets_the_mode_is_told(app: Path) -> None:
    own = yaml.safe_load((app / "values.yaml").read_text())
    own["icr-proxy"]["mode"] = "gateway"

    with pytest.raises(helm_python.HelmRenderError, match="must be sidecar"):
        helm4(own, chart=app)


@pytest.mark.parametrize(
    ("kind", "name"), [("Deployment", "reports"), ("Job", "import"), ("CronJob", "nightly")]
)
def test_kustomize_adds_the_sidecar_of_the_chart(app: Path, kind: str, name: str) -> None:
    by_helm = sidecar(pod_of(only(helm4({}, chart=app), "Job")))
    pod = pod_of(only(kustomized(HERE / "kustomize"), kind, name))

    image = {"image": "registry.example/icr-proxy:0.1.0"}
    assert sidecar(pod) == by_helm | image
    assert pod["initContainers"][0]["name"] == "icr-proxy"
    assert volumes(pod)["icr-proxy-config"]["configMap"]["name"] == "icr-proxy"
    assert volumes(pod)["icr-proxy-keys"]["secret"]["defaultMode"] == 0o444


def test_kustomize_leaves_other_workloads_alone() -> None:
    pod = pod_of(only(kustomized(HERE / "kustomize"), "Deployment", "unrelated"))

    assert set(pod) == {"containers"}
