"""What the gateway's manifests promise, each by its consequence."""

from __future__ import annotations

import re
from typing import Any

import helm_python
import pytest
import yaml

from tests.external.chart.rendering import (
    CASES,
    ROOT,
    helm4,
    notes,
    only,
    pod_of,
    pods,
    proxy_containers,
    values_of,
)

APP = {"id": "1f3a8a4e-52c5-4a3b-9d0c-3f2b8f4f9a10"}
CALLER = {"name": "tool", "keys": ["sha256:" + "5a" * 32]}


def render(**config: Any) -> list[dict[str, Any]]:
    values = {"config": {"app": APP, **config}, "privateKey": {"secretName": "k"}}
    return helm4(values)


def policy(manifests: list[dict[str, Any]], name: str = "r-icr-proxy") -> dict[str, Any]:
    return only(manifests, "NetworkPolicy", name)


def pod(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    return pod_of(only(manifests, "Deployment"))


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_restricted(case: str) -> None:
    for each in pods(helm4(values_of(case))):
        if case != "injector":  # which needs it, to be believed
            assert each["automountServiceAccountToken"] is False
        assert each["securityContext"]["runAsNonRoot"] is True
        for container in proxy_containers(each):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["runAsUser"] == 65532
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize("case", CASES)
def test_no_file_is_mounted_by_itself(case: str) -> None:
    """A file mounted by subPath never changes, so that no key and no rule would be renewed."""
    for each in pods(helm4(values_of(case))):
        for container in proxy_containers(each):
            assert [m for m in container.get("volumeMounts", ()) if "subPath" in m] == []


@pytest.mark.parametrize(
    ("shutdown", "seconds"),
    [
        pytest.param({}, 30, id="default"),
        pytest.param({"max_drain": "1m"}, 65, id="minutes"),
        pytest.param({"max_drain": "1.5m"}, 95, id="half a minute"),
        pytest.param({"max_drain": 12}, 17, id="a number"),
        pytest.param({"max_drain": "500ms", "min_drain": 0}, 6, id="milliseconds"),
    ],
)
def test_the_kubelet_waits_longer_than_the_proxy_drains(
    shutdown: dict[str, object], seconds: int
) -> None:
    assert pod(render(shutdown=shutdown))["terminationGracePeriodSeconds"] == seconds


def test_the_gateway_serves_on_until_balancers_have_noticed() -> None:
    config = yaml.safe_load(only(render(), "ConfigMap")["data"]["icr-proxy.yaml"])

    assert config["shutdown"] == {"min_drain": "5s"}


@pytest.mark.parametrize("said", [0, "0s"])
def test_what_users_say_wins_be_it_nothing(said: object) -> None:
    manifests = render(shutdown={"min_drain": said})

    config = yaml.safe_load(only(manifests, "ConfigMap")["data"]["icr-proxy.yaml"])
    assert config["shutdown"] == {"min_drain": said}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"policy": {"read_only": True}}, id="policy"),
        pytest.param({"callers": [CALLER], "listeners": [{"bind": "0.0.0.0:8080"}]}, id="callers"),
        pytest.param({"logs": {"level": "debug"}}, id="log level"),
        pytest.param({"upstream": {"api_version": "2024-01-01"}}, id="API version"),
    ],
)
def test_what_the_proxy_reloads_by_itself_replaces_no_pod(change: dict[str, Any]) -> None:
    before = render(**({"listeners": change["listeners"]} if "listeners" in change else {}))
    after = render(**change)

    assert only(before, "ConfigMap") != only(after, "ConfigMap")
    assert only(before, "Deployment") == only(after, "Deployment")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"upstream": {"base_url": "https://test.example"}}, id="where the API is"),
        pytest.param({"limits": {"headers": "64KiB"}}, id="limits"),
        pytest.param({"metrics": {"installations_max": 5}}, id="metrics"),
    ],
)
def test_what_needs_a_restart_replaces_pods(change: dict[str, Any]) -> None:
    assert only(render(), "Deployment") != only(render(**change), "Deployment")


def test_by_default_only_labelled_pods_may_call_and_nobody_may_scrape() -> None:
    manifests = render()
    [callers] = policy(manifests)["spec"]["ingress"]

    labelled, of_helm = (each["podSelector"]["matchLabels"] for each in callers["from"])
    assert labelled == {"icr-proxy/caller": "true"}
    assert of_helm == only(manifests, "Pod")["metadata"]["labels"]
    assert of_helm["app.kubernetes.io/instance"] == "r"
    assert [each["port"] for each in callers["ports"]] == [8080]


def test_the_gateway_reaches_dns_and_the_public_api_and_no_metadata_service() -> None:
    [dns, api] = policy(render())["spec"]["egress"]

    assert {each["port"] for each in dns["ports"]} == {53}
    assert [each["port"] for each in api["ports"]] == [443]
    assert "169.254.0.0/16" in api["to"][0]["ipBlock"]["except"]


@pytest.mark.parametrize(
    ("families", "cidrs"),
    [
        pytest.param({}, {"169.254.20.10/32", "0.0.0.0/0", "::/0"}, id="default"),
        pytest.param({"ipFamilies": ["IPv4"]}, {"169.254.20.10/32", "0.0.0.0/0"}, id="IPv4"),
        pytest.param({"ipFamilies": ["IPv6"]}, {"::/0"}, id="IPv6"),
    ],
)
def test_a_family_can_be_left_out_of_the_policies(
    families: dict[str, list[str]], cidrs: set[str]
) -> None:
    """The plugin of a cluster without IPv6 gave up at `fc00::/7`, and enforced no policy at all."""
    manifests = helm4({**values_of("default"), "networkPolicy": families})

    for name in ("r-icr-proxy", "r-icr-proxy-test"):
        egress = policy(manifests, name)["spec"]["egress"]
        blocks = [to["ipBlock"] for rule in egress for to in rule["to"] if "ipBlock" in to]
        assert {each["cidr"] for each in blocks} == cidrs


def test_the_pod_of_helm_test_may_do_what_the_gateway_may_and_reach_it() -> None:
    """It has the app's key while it runs; and in a namespace that denies egress it would fail."""
    manifests = helm4(values_of("monitoring"))
    gateway, of_the_test = policy(manifests), policy(manifests, "r-icr-proxy-test")

    labels = only(manifests, "Pod")["metadata"]["labels"]
    assert of_the_test["spec"]["podSelector"]["matchLabels"] == labels
    assert of_the_test["spec"]["ingress"] == []
    [to_gateway, *others] = of_the_test["spec"]["egress"]
    assert others == gateway["spec"]["egress"]
    assert to_gateway["to"] == [{"podSelector": gateway["spec"]["podSelector"]}]
    assert [each["port"] for each in to_gateway["ports"]] == [8080]


@pytest.mark.parametrize(
    ("upstream", "port"),
    [
        pytest.param({"base_url": "https://test.example:8443"}, 8443, id="in the URL"),
        pytest.param({"base_url": "http://test.example", "allow_plain": True}, 80, id="plain"),
        pytest.param({"address": "203.0.113.7"}, 443, id="an address without"),
        pytest.param({"address": "203.0.113.7:444"}, 444, id="an address with"),
        pytest.param({"address": "[2001:db8::7]:444"}, 444, id="IPv6 with"),
        pytest.param({"address": "2001:db8::7"}, 443, id="IPv6 without"),
    ],
)
def test_the_way_out_is_open_at_the_port_of_the_api(upstream: dict[str, object], port: int) -> None:
    [_, api] = policy(render(upstream=upstream))["spec"]["egress"]

    assert [each["port"] for each in api["ports"]] == [port]


def test_the_service_selects_the_gateway_and_not_the_pod_of_helm_test() -> None:
    manifests = render()
    selector = only(manifests, "Service", "r-icr-proxy")["spec"]["selector"]

    assert (
        selector.items()
        <= only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    )
    assert not selector.items() <= only(manifests, "Pod")["metadata"]["labels"].items()


def test_the_port_of_the_service_is_that_of_the_first_listener() -> None:
    manifests = helm4(values_of("callers"))

    [http, _] = pod(manifests)["containers"][0]["ports"]
    assert http == {"name": "http", "containerPort": 8443, "protocol": "TCP"}


def test_a_trail_is_one_pods_own_and_waits_for_it() -> None:
    manifests = helm4(values_of("audit"))

    workload = only(manifests, "StatefulSet")
    [claim] = workload["spec"]["volumeClaimTemplates"]
    mounts = {m["name"]: m for m in pod_of(workload)["containers"][0]["volumeMounts"]}
    config = yaml.safe_load(only(manifests, "ConfigMap")["data"]["icr-proxy.yaml"])
    assert claim["spec"]["resources"]["requests"]["storage"] == "50Gi"
    assert config["audit"]["directory"].startswith(mounts["icr-proxy-audit"]["mountPath"])
    assert "readOnly" not in mounts["icr-proxy-audit"]


def test_an_autoscaler_and_not_the_chart_says_how_many_pods_there_are() -> None:
    manifests = helm4(values_of("autoscaling"))

    assert "replicas" not in only(manifests, "Deployment")["spec"]
    target = only(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "r-icr-proxy")


def test_probes_ask_by_the_program_where_the_kubelet_cannot_reach() -> None:
    [container] = pod(helm4(values_of("loopback-admin")))["containers"]

    asked = {name: container[name]["exec"]["command"] for name in container if "Probe" in name}
    assert asked == {
        "startupProbe": ["icr-proxy", "health", "--ready", "--admin", "127.0.0.1:9191"],
        "livenessProbe": ["icr-proxy", "health", "--admin", "127.0.0.1:9191"],
        "readinessProbe": ["icr-proxy", "health", "--ready", "--admin", "127.0.0.1:9191"],
    }


def test_rules_and_dashboard_are_those_of_the_configuration() -> None:
    manifests = helm4(values_of("monitoring"))

    rules = (ROOT / "config" / "prometheus-rules.yaml").read_text()
    dashboard = only(manifests, "ConfigMap", "r-icr-proxy-dashboard")["data"]["icr-proxy.json"]
    assert only(manifests, "PrometheusRule")["spec"] == yaml.safe_load(rules)
    assert dashboard == (ROOT / "config" / "grafana-dashboard.json").read_text()


def test_prometheus_finds_the_admin_port_and_may_reach_it() -> None:
    manifests = helm4(values_of("monitoring"))

    monitor = only(manifests, "ServiceMonitor")["spec"]
    service = only(manifests, "Service", "r-icr-proxy-admin")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    prometheus = {"app.kubernetes.io/name": "prometheus"}
    allowed = policy(manifests)["spec"]["ingress"][1]["from"]
    assert {"namespaceSelector": {}, "podSelector": {"matchLabels": prometheus}} in allowed


def test_a_route_leads_to_the_service() -> None:
    manifests = helm4(values_of("http-route"))

    [rule] = only(manifests, "HTTPRoute")["spec"]["rules"]
    service = only(manifests, "Service", "r-icr-proxy")
    port = service["spec"]["ports"][0]["port"]
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": port}]


GATEWAYS = [each for each in CASES if not re.search("sidecar|injector", each)]


@pytest.mark.parametrize("case", GATEWAYS)
def test_helm_test_connects_by_the_data_service_and_signs_in_as_the_gateway(case: str) -> None:
    """Ready is not enough: with another app's key all pods are ready, and no request works."""
    manifests = helm4(values_of(case))
    names = [each["metadata"]["name"] for each in manifests if each["kind"] == "Service"]
    service = only(manifests, "Service", min(names, key=len))
    of_the_test = only(manifests, "Pod")["spec"]
    [wait], [doctor] = of_the_test["initContainers"], of_the_test["containers"]
    [gateway] = [each for each in pods(manifests) if "initContainers" not in each]

    port = service["spec"]["ports"][0]["port"]
    assert wait["args"][-2:] == ["--listener", f"{service['metadata']['name']}:{port}"]
    assert doctor["args"] == ["doctor", "--config", gateway["containers"][0]["args"][-1]]
    assert doctor.get("env") == gateway["containers"][0].get("env")
    mounts = gateway["containers"][0]["volumeMounts"]
    has_trail = any(each["name"] == "icr-proxy-audit" for each in mounts)
    empty = [{"name": "icr-proxy-audit", "emptyDir": {}}] if has_trail else []
    assert of_the_test["volumes"] == gateway["volumes"] + empty  # never that of the trail itself
    assert doctor["volumeMounts"] == mounts
    assert of_the_test["securityContext"] == gateway["securityContext"]


LOOPBACK = [
    "127.0.0.1:9191", "127.0.0.2:9090", "localhost:9090", "[::1]:9090", "unix:/run/admin.sock"
]  # fmt: skip


@pytest.mark.parametrize("bind", LOOPBACK)
def test_an_admin_port_for_the_pod_alone_has_no_service_port_or_rule(bind: str) -> None:
    manifests = helm4(
        {
            "config": {"app": APP, "admin": {"bind": bind}},
            "privateKey": {"secretName": "k"},
            "networkPolicy": {"monitoring": [{"namespaceSelector": {}}]},
        }
    )

    services = [each["metadata"]["name"] for each in manifests if each["kind"] == "Service"]
    [container] = pod(manifests)["containers"]
    assert services == ["r-icr-proxy"]
    assert [each["name"] for each in container["ports"]] == ["http"]
    assert len(policy(manifests)["spec"]["ingress"]) == 1
    assert all("exec" in container[name] for name in container if "Probe" in name)


@pytest.mark.parametrize("bind", LOOPBACK)
def test_what_nobody_could_scrape_is_refused(bind: str) -> None:
    values = values_of("default")
    values["config"]["admin"] = {"bind": bind}

    with pytest.raises(helm_python.HelmRenderError, match="nobody can scrape the admin port at"):
        helm4({**values, "monitoring": {"serviceMonitor": {"enabled": True}}})


@pytest.mark.parametrize("bind", ["*:9191", "0.0.0.0:9191", "[::]:9191"])
def test_an_admin_port_for_everybody_is_asked_by_the_kubelet(bind: str) -> None:
    [container] = pod(render(admin={"bind": bind}))["containers"]

    assert {"name": "admin", "containerPort": 9191, "protocol": "TCP"} in container["ports"]
    assert all("httpGet" in container[name] for name in container if "Probe" in name)


def test_it_listens_on_both_families_whatever_the_cluster_has() -> None:
    """Probes come over the pod's address, which in a cluster of IPv6 alone is one of IPv6."""
    config = yaml.safe_load(only(render(), "ConfigMap")["data"]["icr-proxy.yaml"])

    assert config["listeners"] == [{"bind": "*:8080", "exposed": True}]
    assert config["admin"]["bind"] == "*:9090"


@pytest.mark.parametrize("case", ["default", "callers", "open"])
def test_the_notes_have_a_curl_line(case: str) -> None:
    text = notes(values_of(case))

    assert re.search(
        r"^  curl .*-H 'X-ICR-Installation-Id: .*' https?://r-icr-proxy\.n:", text, re.MULTILINE
    )
    assert ("YOUR-CALLER-KEY" in text) is (case != "default")
    assert ("icr-proxy/caller" in text) is (case == "default")
    assert "kubectl -n n logs deployment/r-icr-proxy\n" in text


def test_the_notes_try_an_injected_pod_in_a_namespace_that_is_labelled() -> None:
    text = notes(values_of("injector"))

    assert "  kubectl label namespace SHOP icr-proxy/injection=enabled\n" in text
    assert "  kubectl -n SHOP run tool " in text


def test_an_audit_trail_is_not_for_sidecars() -> None:
    """Its volume would have to outlive somebody else's pod."""
    with pytest.raises(Exception, match=r"audit\.enabled"):
        helm4({**values_of("sidecar"), "audit": {"enabled": True}})
