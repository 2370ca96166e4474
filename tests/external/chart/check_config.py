"""The configuration that the chart renders is one that the real program takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from icr_proxy.policy.caller_auth import hash_of, new_key
from tests.external.chart.rendering import CASES, HERE, ROOT, helm3_said, helm4, only, values_of
from tests.support.app_fixture import app_key_pem

APP = {"id": "1f3a8a4e-52c5-4a3b-9d0c-3f2b8f4f9a10"}
# What Kubernetes tells every pod of a namespace about a service of the chart's.
SERVICE_LINKS = {
    "ICR_PROXY_SERVICE_HOST": "10.96.0.7",
    "ICR_PROXY_SERVICE_PORT": "8080",
    "ICR_PROXY_SERVICE_PORT_HTTP": "8080",
    "ICR_PROXY_PORT": "tcp://10.96.0.7:8080",
    "ICR_PROXY_PORT_8080_TCP": "tcp://10.96.0.7:8080",
    "ICR_PROXY_PORT_8080_TCP_PROTO": "tcp",
    "ICR_PROXY_PORT_8080_TCP_PORT": "8080",
    "ICR_PROXY_PORT_8080_TCP_ADDR": "10.96.0.7",
}


def program(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("ICR_")}
    return subprocess.run(
        [sys.executable, "-m", "icr_proxy", *words],
        env=clean | environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what is mounted at /etc/icr-proxy: keys, a certificate, the audit trail's key."""
    folder = tmp_path_factory.mktemp("mounts")
    for name in ("keys", "tls", "audit"):
        (folder / name).mkdir()
    (folder / "keys" / "2026-11-25.pem").write_text(app_key_pem())
    (folder / "audit" / "audit.key").write_text("5a" * 32)
    (folder / "audit" / "audit.key").chmod(0o400)
    program("keys", "tls", "--for", "r-icr-proxy.n", "--out", folder / "tls")
    return folder


def config_of(manifests: list[dict[str, Any]]) -> str:
    names = [each["metadata"]["name"] for each in manifests if each["kind"] == "ConfigMap"]
    text: str = only(manifests, "ConfigMap", min(names, key=len))["data"]["icr-proxy.yaml"]
    return text


def checked(text: str, mounts: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    file = mounts / "icr-proxy.yaml"
    text = text.replace("/etc/icr-proxy", str(mounts))
    for place in ("/var/lib/icr-proxy", "/run/icr-proxy", "/var/run/icr-proxy"):
        text = text.replace(place, str(mounts))
    # `check` tries the addresses, which may be in use where tests run.
    file.write_text(re.sub(r"(bind: \S+):[0-9]+", r"\1:0", text))
    return program("check", "--config", file, **environment)


@pytest.mark.parametrize("case", [each for each in CASES if "injector" not in each])
def test_the_program_takes_what_the_chart_renders(mounts: Path, case: str) -> None:
    given = {"ICR_PROXY_APP__ID": "a", "ICR_PROXY_APP__PRIVATE_KEY": app_key_pem()}

    done = checked(config_of(helm4(values_of(case))), mounts, **(given if case == "env" else {}))

    assert done.returncode == 0, done.stderr


def test_the_program_takes_what_users_of_kustomize_are_shown(mounts: Path) -> None:
    done = checked((HERE / "kustomize" / "icr-proxy.yaml").read_text(), mounts)

    assert done.returncode == 0, done.stderr


def test_the_variables_of_a_service_beside_it_are_not_taken_for_settings(mounts: Path) -> None:
    """A sidecar is in a pod of somebody else, who decides on service links."""
    text = config_of(helm4(values_of("sidecar")))
    admin = {name.replace("PROXY_", "PROXY_ADMIN_", 1): it for name, it in SERVICE_LINKS.items()}

    done = checked(text, mounts, **SERVICE_LINKS, **admin)

    assert done.returncode == 0, done.stderr


def test_large_numbers_arrive_as_they_were_written() -> None:
    """Helm reads numbers as floating-point ones."""
    values = {**values_of("default")}
    values["config"] = {"app": APP, "limits": {"in_flight": 1_000_000, "body": 10_485_760}}

    config = yaml.safe_load(config_of(helm4(values)))

    assert config["limits"] == {"in_flight": 1_000_000, "body": 10_485_760}


WRONG = [
    pytest.param({"replica": 3}, "replica", id="a value that is none"),
    pytest.param({"service": {"ports": 80}}, "ports", id="deeper"),
    pytest.param({"mode": "daemon"}, "mode", id="a mode that is none"),
    pytest.param({"config": {"app": {"idd": "x"}}}, "idd", id="no key of the proxy"),
    pytest.param({"config": {"limits": {"in_flight": "many"}}}, "in_flight", id="no number"),
    pytest.param({"config": {"listeners": [{"bnd": "x"}]}}, "bnd", id="in a list"),
    pytest.param({"config": {"app": {"private_key": "P"}}}, "private_key", id="a key in the open"),
    pytest.param({"config": {"webhooks": {"secret": "s"}}}, "secret", id="a secret in the open"),
    pytest.param(
        {"env": [{"name": "ICR_PROXY_APP__PRIVATE_KEY", "value": "P"}]}, "env", id="in a variable"
    ),
    pytest.param({"secrets": {"keys": "x"}}, "keys", id="a mount that is taken"),
    pytest.param({"image": {"digest": "latest"}}, "digest", id="no digest"),
    pytest.param({"mode": "injector", "replicas": 21}, "replicas", id="more than have room"),
    pytest.param({"networkPolicy": {"ipFamilies": []}}, "ipFamilies", id="no family"),
    pytest.param({"networkPolicy": {"ipFamilies": ["IPv5"]}}, "ipFamilies", id="no such family"),
]


@pytest.mark.parametrize(("values", "named"), WRONG)
def test_helm_4_refuses_what_is_wrong(values: dict[str, Any], named: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=named):
        helm4(values)


@pytest.mark.parametrize(("values", "named"), WRONG)
def test_helm_3_refuses_what_is_wrong(values: dict[str, Any], named: str, tmp_path: Path) -> None:
    file = tmp_path / "v.yaml"
    file.write_text(yaml.safe_dump(values))

    done = helm3_said("template", "r", str(ROOT / "helm" / "icr-proxy"), "--values", str(file))

    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize(
    ("values", "named"),
    [
        pytest.param({}, "config.app.id", id="no app"),
        pytest.param({"config": {"app": APP}}, "privateKey.secretName", id="no key"),
        pytest.param(
            {
                "config": {"app": APP},
                "privateKey": {"secretName": "k"},
                "networkPolicy": {"enabled": False},
            },
            "config.callers",
            id="open to everybody",
        ),
        pytest.param(
            {
                "config": {"app": APP},
                "privateKey": {"secretName": "k"},
                "ingress": {"enabled": True},
            },
            "ingress.hosts",
            id="a way in without a name",
        ),
        pytest.param(
            {
                "config": {"app": APP, "upstream": {"base_url": "http://emulator.icr:9000"}},
                "privateKey": {"secretName": "k"},
            },
            "config.upstream.allow_plain",
            id="tokens in the open",
        ),
    ],
)
def test_what_is_missing_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=named):
        helm4(values)


def test_a_key_of_a_caller_is_no_secret_once_it_is_a_hash(mounts: Path) -> None:
    key = new_key()
    values = values_of("default")
    values["config"]["callers"] = [{"name": "tool", "keys": [hash_of(key)]}]

    text = config_of(helm4(values))

    assert key not in text
    assert checked(text, mounts).returncode == 0
