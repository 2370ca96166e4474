"""What the chart renders is what a cluster takes, with both Helms and every feature."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from icr_proxy import __version__
from tests.external.chart.rendering import (
    CASES,
    CHART,
    HERE,
    KUBERNETES,
    Manifest,
    case_file,
    helm3,
    helm3_said,
    helm4,
    kustomized,
    values_of,
    with_dependency,
)

WARNING = 2  # helm's severity
# Kinds that others define: there are no schemas of them, so there are tests of each elsewhere.
FOREIGN = {"Certificate", "HTTPRoute", "PrometheusRule", "ServiceMonitor"}
GOLDEN = HERE / "golden.yaml"


def faults(manifest: Manifest, version: str) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError as exc:
        return [] if manifest["kind"] in FOREIGN else [str(exc)]
    except kubernetes_validate.ValidationError as exc:
        return [f"{manifest['kind']}: {exc.message}"]
    return []


@pytest.mark.parametrize("case", CASES)
def test_helm_4_lints_without_a_warning(case: str) -> None:
    report = helm_python.lint(
        str(CHART), values_of(case), strict=True, namespace="n", kube_version="v1.29.0"
    )

    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] >= WARNING] == []


@pytest.mark.parametrize("case", CASES)
def test_helm_3_lints_without_a_warning(case: str) -> None:
    done = helm3_said("lint", str(CHART), "--strict", "--values", str(case_file(case)))

    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("case", CASES)
def test_both_helms_render_the_same(case: str) -> None:
    assert helm3(case_file(case)) == helm4(values_of(case))


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_what_is_rendered(case: str, version: str) -> None:
    manifests = helm4(values_of(case))

    assert manifests
    assert [fault for each in manifests for fault in faults(each, version)] == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_an_application_with_the_sidecar(tmp_path: Path, version: str) -> None:
    by_helm = helm4({}, chart=with_dependency(tmp_path))
    by_kustomize = kustomized(HERE / "kustomize")

    assert [fault for each in by_helm + by_kustomize for fault in faults(each, version)] == []


def test_a_mistake_is_found_by_these_schemas() -> None:
    """Otherwise the tests above would pass on anything."""
    [workload] = [each for each in helm4(values_of("default")) if each["kind"] == "Deployment"]
    workload["spec"]["template"]["spec"]["containers"][0]["imagePullPolicies"] = "Always"

    assert [len(faults(workload, version)) for version in KUBERNETES] == [1, 1]


@pytest.mark.parametrize("case", CASES)
def test_trivy_finds_nothing_to_object_to(case: str) -> None:
    done = subprocess.run(
        [
            "trivy", "config", "--skip-check-update", "--skip-version-check", "--quiet",
            "--exit-code", "1", "--ignorefile", str(HERE / "trivyignore"),
            "--helm-values", str(case_file(case)), "--helm-kube-version", KUBERNETES[0], str(CHART),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_trivy_would_object_to_a_privileged_container(tmp_path: Path) -> None:
    """Otherwise the test above would pass on anything."""
    manifests = helm4(values_of("default"))
    for each in manifests:
        if each["kind"] == "Deployment":
            each["spec"]["template"]["spec"]["containers"][0]["securityContext"] = {
                "privileged": True
            }
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(manifests))

    done = subprocess.run(
        ["trivy", "config", "--skip-check-update", "-q", "--exit-code", "1", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1


def test_yamllint_finds_nothing_to_object_to() -> None:
    """What is rendered, and what people edit; templates themselves are no YAML."""
    rules = "{extends: default, rules: {line-length: disable, document-start: disable, "
    rules += "braces: {max-spaces-inside: 1}, comments: {min-spaces-from-content: 1}}}"
    files = [CHART / "values.yaml", CHART / "Chart.yaml", *map(case_file, CASES)]
    files += [*(CHART.parents[1] / "kustomize" / "sidecar").iterdir()]

    done = subprocess.run(
        ["yamllint", "--strict", "-d", rules, *map(str, files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_the_defaults_render_to_the_golden_file() -> None:
    """A change of it is shown to whoever reviews; ICR_TEST_WRITE_GOLDEN=1 writes it anew."""
    rendered = yaml.safe_dump_all(helm4(values_of("default")), sort_keys=False)
    if os.environ.get("ICR_TEST_WRITE_GOLDEN"):
        GOLDEN.write_text(rendered)

    assert rendered == GOLDEN.read_text()


def test_the_package_has_the_files_of_the_configuration_byte_by_byte(tmp_path: Path) -> None:
    """In the checkout they are symbolic links, which both Helms follow."""
    helm_python.package(str(CHART), destination=str(tmp_path / "4"))
    done = helm3_said("package", str(CHART), "--destination", str(tmp_path / "3"))

    assert done.returncode == 0, done.stderr
    for helm in ("3", "4"):
        archive = tmp_path / helm / "icr-proxy-0.1.0.tgz"
        subprocess.run(["tar", "-xzf", archive, "-C", tmp_path / helm], check=True)
        for name in ("prometheus-rules.yaml", "grafana-dashboard.json"):
            packed = tmp_path / helm / "icr-proxy" / "files" / name
            assert not packed.is_symlink()
            assert packed.read_bytes() == (CHART.parents[1] / "config" / name).read_bytes()


def test_the_image_is_what_the_chart_takes_it_for() -> None:
    image = (CHART.parents[1] / "Dockerfile").read_text()

    assert "\nUSER 65532:65532\n" in image
    assert '"icr-proxy"]\n' in image.partition("\nENTRYPOINT [")[2]


def test_the_chart_is_of_the_version_of_the_program() -> None:
    chart: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    [workload] = [each for each in helm4(values_of("default")) if each["kind"] == "Deployment"]

    assert chart["version"] == chart["appVersion"] == __version__
    assert workload["metadata"]["labels"]["app.kubernetes.io/version"] == __version__
