from __future__ import annotations

import json

import pytest

from icr_proxy.injector.annotations import Wish, read_wish
from icr_proxy.injector.sidecar import Defaults, container, read_amounts, volumes
from tests.support.pods import ASKED, DEFAULTS, Manifest


def wish_of(**said: str) -> Wish:
    found = read_wish(ASKED | {name.replace("_", "-"): said[name] for name in said}, DEFAULTS)
    assert isinstance(found, Wish), found
    return found


def made(defaults: Defaults = DEFAULTS, **said: str) -> Manifest:
    return container(wish_of(**said), defaults)


def test_it_may_do_nothing_that_pod_security_restricted_forbids() -> None:
    assert made()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsGroup": 65532,
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_natively_it_is_one_that_kubernetes_keeps_running_and_waits_for() -> None:
    found = made()

    assert found["restartPolicy"] == "Always"
    assert found["startupProbe"]["exec"]["command"] == [
        "icr-proxy", "health", "--ready", "--admin", "127.0.0.1:9090",
    ]  # fmt: skip
    assert "lifecycle" not in found


def test_a_plain_one_holds_up_what_starts_after_it() -> None:
    found = made(mode="plain")

    assert "restartPolicy" not in found
    assert found["lifecycle"]["postStart"]["exec"]["command"] == [
        "icr-proxy", "wait", "--timeout", "60", "--admin", "127.0.0.1:9090",
    ]  # fmt: skip


def test_probes_ask_where_the_admin_port_is() -> None:
    found = made(admin_port="19090")

    for probe in ("startupProbe", "livenessProbe"):
        assert found[probe]["exec"]["command"][-1] == "127.0.0.1:19090"


def test_the_key_is_a_secret_that_is_mounted_and_never_written_into_the_pod() -> None:
    found = made(key_secret="theirs")
    mounts = {"name": "icr-proxy-keys", "mountPath": "/etc/icr-proxy/keys", "readOnly": True}
    secret = {"secretName": "theirs", "defaultMode": 0o444}

    assert found["volumeMounts"][0] == mounts
    assert volumes(wish_of(key_secret="theirs"))[0] == {"name": "icr-proxy-keys", "secret": secret}
    assert 'PRIVATE_KEY"' not in json.dumps(found)
    assert all("valueFrom" not in each for each in found["env"])


def test_a_config_map_is_mounted_and_read() -> None:
    found = made(config_map="icr-proxy")

    assert found["args"] == ["run", "--config", "/etc/icr-proxy/config/icr-proxy.yaml"]
    assert found["volumeMounts"][1]["mountPath"] == "/etc/icr-proxy/config"
    assert volumes(wish_of(config_map="c"))[1]["configMap"] == {"name": "c"}


@pytest.mark.parametrize("said", [{}, {"config_map": "c"}, {"mode": "plain"}])
def test_it_has_no_token_of_the_pods_service_account(said: dict[str, str]) -> None:
    """Kubernetes mounts it into every container that has no mount of its own at this path."""
    wish = wish_of(**said)

    [mount] = [
        each for each in container(wish, DEFAULTS)["volumeMounts"] if "token" in each["name"]
    ]
    [volume] = [each for each in volumes(wish) if each["name"] == mount["name"]]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert mount["readOnly"] is True
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Mi"}


def test_resources_come_from_the_flags() -> None:
    found = made(Defaults(requests={"cpu": "1m"}, limits={}))

    assert found["resources"] == {"requests": {"cpu": "1m"}}


def test_only_an_exposed_admin_port_is_a_port_of_the_pod() -> None:
    assert "ports" not in made()
    assert made(admin_exposed="true", admin_port="19090")["ports"] == [
        {"name": "icr-admin", "containerPort": 19090, "protocol": "TCP"}
    ]


def test_kubernetes_puts_nothing_else_into_a_value() -> None:
    found = {each["name"]: each["value"] for each in made(app_id="$(SECRET)")["env"]}

    assert found["ICR_PROXY_APP__ID"] == "$$(SECRET)"


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "kube-node-lease", "kube-x"])
def test_what_is_kept_for_kubernetes_is_left_alone(namespace: str) -> None:
    assert Defaults().leaves_alone(namespace)


@pytest.mark.parametrize("namespace", ["shop", "my-kube-system", "kube", ""])
def test_other_namespaces_are_not(namespace: str) -> None:
    assert not Defaults().leaves_alone(namespace)


def test_further_ones_can_be_excluded() -> None:
    assert Defaults(excluded=frozenset({"shop"})).leaves_alone("shop")


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("", {}),
        ("cpu=50m", {"cpu": "50m"}),
        (" cpu=1 , memory=96Mi,", {"cpu": "1", "memory": "96Mi"}),
        ("ephemeral-storage=1.5Gi,memory=1e9", {"ephemeral-storage": "1.5Gi", "memory": "1e9"}),
    ],
)
def test_amounts_are_read(text: str, amounts: dict[str, str]) -> None:
    assert read_amounts(text) == amounts


@pytest.mark.parametrize("text", ["cpu", "cpu=", "gpu=1", "cpu=fast", "cpu=-1", "cpu=1 memory=2"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not "):
        read_amounts(text)
