"""What people read about the injector is what it does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from icr_proxy import __version__
from icr_proxy.cli.injector import injector
from icr_proxy.injector.annotations import ANNOTATIONS, PREFIX, RESTART
from icr_proxy.injector.sidecar import SECURITY
from icr_proxy.injector.webhook import MUTATE
from tests.support.pods import Manifest

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "injector.md").read_text()
ROW = re.compile(rf"^\| `{PREFIX}([a-z-]+)` \| .+ \| (?:`(.+)` )?\|$", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z-]+)")
# Of kubectl.
FOREIGN = {"--dry-run", "--from-file"}

MANIFESTS: dict[str, Manifest] = {
    each["kind"]: each
    for each in yaml.safe_load_all((ROOT / "config" / "injector.yaml").read_text())
}


def test_docs_name_every_annotation_and_what_it_sets() -> None:
    assert dict(ROW.findall(DOCS)) == {name: each.key or "" for name, each in ANNOTATIONS.items()}


def test_docs_name_no_flag_that_is_not_there() -> None:
    known = {option for parameter in injector.params for option in parameter.opts}

    assert set(FLAG.findall(DOCS)) - FOREIGN <= known


def pod_spec() -> Manifest:
    spec: Manifest = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
    return spec


def arguments() -> dict[str, Any]:
    [container] = pod_spec()["containers"]
    command, *words = container["args"]
    assert command == "injector"
    context = injector.make_context("injector", list(words))
    found: dict[str, Any] = context.params
    return found


def test_the_example_starts_the_program_with_flags_it_has() -> None:
    found = arguments()

    assert found["self_signed"] is True
    assert found["image"] == pod_spec()["containers"][0]["image"] == f"icr-proxy:{__version__}"


def test_the_parts_of_the_example_find_one_another() -> None:
    service = MANIFESTS["Service"]["metadata"]
    hook = MANIFESTS["MutatingWebhookConfiguration"]
    [webhook] = hook["webhooks"]
    rule = MANIFESTS["ClusterRole"]["rules"][0]
    found = arguments()

    assert found["names"] == (f"{service['name']}.{service['namespace']}.svc",)
    assert found["patch_webhook"] == hook["metadata"]["name"] == rule["resourceNames"][0]
    assert webhook["clientConfig"]["service"] == {
        "name": service["name"],
        "namespace": service["namespace"],
        "path": MUTATE,
        "port": MANIFESTS["Service"]["spec"]["ports"][0]["port"],
    }
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["Service"]["spec"]["selector"] == labels
    account = MANIFESTS["ServiceAccount"]["metadata"]["name"]
    assert pod_spec()["serviceAccountName"] == account
    assert MANIFESTS["ClusterRoleBinding"]["subjects"][0]["name"] == account


def test_the_example_asks_about_pods_that_ask() -> None:
    [webhook] = MANIFESTS["MutatingWebhookConfiguration"]["webhooks"]

    [condition] = webhook["matchConditions"]
    assert f"name.startsWith('{PREFIX}')" in condition["expression"]
    assert f"name != '{PREFIX}{RESTART}'" in condition["expression"]
    assert webhook["failurePolicy"] == "Fail"
    assert webhook["sideEffects"] == "None"


def test_the_injector_itself_runs_as_what_it_injects() -> None:
    assert pod_spec()["containers"][0]["securityContext"] == SECURITY


@pytest.mark.parametrize("parameter", injector.params, ids=lambda each: str(each.name))
def test_every_flag_says_what_it_is_for(parameter: click.Option) -> None:
    assert parameter.help
