"""What docs/kubernetes.md shows is what the chart takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.external.chart.rendering import ROOT, helm4, only, pod_of, values_of, with_dependency

TEXT = (ROOT / "docs" / "kubernetes.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)
TEMPLATE_LINE = re.compile(r"^ *\{\{.*\}\}\n", re.MULTILINE)


def shown(block: str) -> Any:
    """Read an example, with a real hash for a shortened one and without lines for Helm."""
    return yaml.safe_load(TEMPLATE_LINE.sub("", block).replace("d071…", "d0" * 32))


EXAMPLES = [shown(block) for block in BLOCKS]
OF_THE_GATEWAY = [each for each in EXAMPLES if {"config", "privateKey"} & set(each)]
OF_THE_SIDECAR = [each["icr-proxy"] for each in EXAMPLES if "icr-proxy" in each]


def test_there_are_examples_of_both() -> None:
    assert (len(OF_THE_GATEWAY), len(OF_THE_SIDECAR)) == (3, 2)


@pytest.mark.parametrize("values", OF_THE_GATEWAY)
def test_the_chart_takes_an_example_for_the_gateway(values: dict[str, Any]) -> None:
    default = values_of("default")
    config = default["config"] | values.get("config", {})

    assert only(helm4({**default, **values, "config": config}), "Deployment")


@pytest.mark.parametrize("values", OF_THE_SIDECAR)
def test_the_chart_takes_an_example_for_the_sidecar(values: dict[str, Any], tmp_path: Path) -> None:
    app = with_dependency(tmp_path)

    pod = pod_of(only(helm4({"icr-proxy": values}, chart=app), "Job"))

    mounts = {each["mountPath"] for each in pod["initContainers"][0]["volumeMounts"]}
    assert {f"/etc/icr-proxy/{name}" for name in values.get("secrets", {})} <= mounts


def test_the_templates_that_are_named_are_there() -> None:
    defined = {
        name
        for file in (ROOT / "helm" / "icr-proxy" / "templates").glob("*.tpl")
        for name in re.findall(r'define "(icr-proxy\.\w+)"', file.read_text())
    }

    assert set(re.findall(r"icr-proxy\.(?:sidecar|init)\w*", TEXT)) <= defined


def test_the_values_that_are_named_are_there() -> None:
    values = yaml.safe_load((ROOT / "helm" / "icr-proxy" / "values.yaml").read_text())
    sections = "|".join(name for name, each in values.items() if isinstance(each, dict) and each)
    named = set(re.findall(rf"`((?:{sections})\.\w+)`", TEXT)) - {"audit.directory"}

    assert named
    assert [
        name for name in named if name.partition(".")[2] not in values[name.partition(".")[0]]
    ] == []


@pytest.mark.parametrize(
    ("heading", "phrase"),
    [
        pytest.param("Gateway", "kubectl -n icr logs deployment/icr-proxy", id="it does not start"),
        pytest.param("Gateway", "icr-proxy-test --all-containers", id="helm test failed"),
        pytest.param("Gateway", "delete pod icr-proxy-test", id="its pod stays"),
        pytest.param("Gateway", "`audit.size` be changed later", id="a volume's size"),
        pytest.param("Gateway", "`networkPolicy.ipFamilies: [IPv4]`", id="no IPv6"),
        pytest.param("Gateway", "the pods' port in `networkPolicy.extraEgress`", id="pods' port"),
        pytest.param("Sidecar", "activeDeadlineSeconds", id="a job that never ends"),
        pytest.param("Sidecar", "8443 and 16443", id="where the Kubernetes API is"),
        pytest.param("To upgrade", "--rollback-on-failure` (`--atomic` before", id="both Helms"),
        pytest.param("To change the key", "| kubectl replace -f -", id="no key in an annotation"),
        pytest.param("To change the key", "every two seconds", id="a quiet pod"),
    ],
)
def test_what_to_do_stands_where_it_is_looked_for(heading: str, phrase: str) -> None:
    [section] = [each for each in SECTIONS if each.startswith(f"{heading}\n")]

    assert phrase in section


def test_no_secret_is_applied() -> None:
    """kubectl would copy the key into an annotation, and warn."""
    assert "| kubectl apply" not in TEXT
