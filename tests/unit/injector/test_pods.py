from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from icr_proxy.errors import BadRequestError
from icr_proxy.injector.annotations import Wish, read_wish
from icr_proxy.injector.pods import conflicts, read_pod, weaknesses
from tests.support.pods import ASKED, DEFAULTS, Manifest, job_pod, parsed, pod


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "pod",
        {},
        {"metadata": {}},
        {"metadata": {}, "spec": []},
        {"metadata": {}, "spec": {"containers": {}}},
        {"metadata": {}, "spec": {"containers": [1]}},
        {"metadata": {"annotations": {"a": 1}}, "spec": {"containers": []}},
        {"metadata": {}, "spec": {"containers": []}},
    ],
    ids=json.dumps,
)
def test_what_is_no_pod_is_a_bad_request(wrong: object) -> None:
    with pytest.raises(BadRequestError):
        read_pod(msgspec.Raw(json.dumps(wrong).encode()))


def test_what_is_absent_is_as_what_is_null() -> None:
    bare: Manifest = {"containers": [{}], "initContainers": None, "volumes": None, "os": None}

    found = parsed({"metadata": {"annotations": None}, "spec": bare})

    assert (found.annotations, found.called, found.is_of_job) == ({}, "", False)
    assert len(found.everything) == 1


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        pytest.param(job_pod({}), True, id="job"),
        pytest.param(pod(restartPolicy="OnFailure"), True, id="on-failure"),
        pytest.param(pod(restartPolicy="Always"), False, id="always"),
        pytest.param(pod(), False, id="unsaid"),
    ],
)
def test_a_pod_that_ends_by_itself_is_known(manifest: Manifest, *, expected: bool) -> None:
    assert parsed(manifest).is_of_job is expected


def wish_of(**said: str) -> Wish:
    found = read_wish(ASKED | said, DEFAULTS)
    assert isinstance(found, Wish), found
    return found


def having(**container: Any) -> Manifest:
    return pod(containers=[{"name": "web", "image": "web:1"} | container])


CONFLICTS = [
    pytest.param(
        having(ports=[{"containerPort": 8080}]),
        "container web has port 8080, which the proxy wants; choose another one for it with"
        " icr-proxy/port",
        id="port",
    ),
    pytest.param(
        having(ports=[{"containerPort": 80}, {"containerPort": 9090, "protocol": "TCP"}]),
        "container web has port 9090, which the proxy wants; choose another one for it with"
        " icr-proxy/admin-port",
        id="admin-port",
    ),
    pytest.param(
        pod(initContainers=[{"name": "early", "ports": [{"containerPort": 8080}]}]),
        "container early has port 8080, which the proxy wants; choose another one for it with"
        " icr-proxy/port",
        id="init-container",
    ),
    pytest.param(
        having(name="icr-proxy"),
        "the pod has a container icr-proxy of its own; rename it, or do without injection",
        id="name",
    ),
    pytest.param(
        pod(volumes=[{"name": "icr-proxy-keys", "emptyDir": {}}]),
        "the pod has a volume icr-proxy-keys of its own; rename it",
        id="volume",
    ),
    pytest.param(
        pod(volumes=[{"name": "icr-proxy-no-token", "emptyDir": {}}]),
        "the pod has a volume icr-proxy-no-token of its own; rename it",
        id="another-volume",
    ),
    pytest.param(
        pod(hostNetwork=True),
        "the pod has hostNetwork: the proxy's loopback would be the node's, and whoever is on the"
        " node could act as the installation",
        id="host-network",
    ),
    pytest.param(
        pod(os={"name": "windows"}),
        "the pod is for Windows, for which there is no image of the proxy",
        id="windows",
    ),
]


@pytest.mark.parametrize(("manifest", "sentence"), CONFLICTS)
def test_a_pod_without_room_is_told_why(manifest: Manifest, sentence: str) -> None:
    assert list(conflicts(parsed(manifest), wish_of())) == [sentence]


@pytest.mark.parametrize(
    "manifest",
    [
        pytest.param(pod(), id="plain"),
        pytest.param(having(ports=None), id="null"),
        pytest.param(having(ports=[{"containerPort": 8080, "protocol": "UDP"}]), id="udp"),
        pytest.param(pod(os={"name": "linux"}), id="linux"),
        pytest.param(pod(volumes=[{"name": "work"}]), id="volume"),
    ],
)
def test_others_have_room(manifest: Manifest) -> None:
    assert list(conflicts(parsed(manifest), wish_of())) == []


def test_another_port_makes_room() -> None:
    manifest = having(ports=[{"containerPort": 8080}])

    assert list(conflicts(parsed(manifest), wish_of(port="18080"))) == []


def test_shared_processes_are_warned_of() -> None:
    found = list(weaknesses(parsed(pod(shareProcessNamespace=True)), wish_of()))

    assert [each.partition(":")[0] for each in found] == ["shareProcessNamespace"]


def test_a_job_with_a_plain_sidecar_is_told_that_it_will_not_end() -> None:
    (found,) = weaknesses(parsed(job_pod({})), wish_of(mode="plain"))

    assert "POST to http://127.0.0.1:9090/quit" in found


def test_a_job_with_a_native_one_is_not() -> None:
    assert list(weaknesses(parsed(job_pod({})), wish_of())) == []
