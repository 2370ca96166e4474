"""Pods and the questions Kubernetes asks about them, and what it does with the answers."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import jsonpatch
import msgspec

from icr_proxy.injector.pods import Pod, read_pod
from icr_proxy.injector.sidecar import Defaults

Manifest = dict[str, Any]

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"
DEFAULTS = Defaults(app_id="1f3a8a4e", key_secret="icr-app-keys")
ASKED = {"inject": "true", "installation": "3b0c9f0e"}


def pod(said: dict[str, str] | None = None, **spec: Any) -> Manifest:
    """Write a pod as a Deployment makes it; `said` are annotations without our prefix."""
    names = {"generateName": "web-5d8f7c-", "namespace": "shop"}
    annotations = {f"icr-proxy/{name}": text for name, text in (said or {}).items()}
    metadata: Manifest = names | ({"annotations": annotations} if annotations else {})
    web = {"name": "web", "image": "web:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [web]} | spec,
    }


def job_pod(said: dict[str, str]) -> Manifest:
    """Write a pod as a Job makes it, with volumes and an init container of its own."""
    made = pod(
        said,
        restartPolicy="Never",
        containers=[{"name": "retire", "image": "retire:1"}],
        initContainers=[{"name": "fetch", "image": "fetch:1"}],
        volumes=[{"name": "work", "emptyDir": {}}],
    )
    made["metadata"]["generateName"] = "retire-"
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "retire", "uid": UID}
    made["metadata"]["ownerReferences"] = [owner | {"controller": True}]
    return made


def parsed(manifest: Manifest) -> Pod:
    """Read it as the injector does."""
    return read_pod(msgspec.Raw(json.dumps(manifest).encode()))


def review(manifest: object, **request: Any) -> Manifest:
    """Ask as the API server does (its documentation has this example, with every member)."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": UID,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "object": manifest,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        }
        | request,
    }


def response_in(answer: Manifest) -> Manifest:
    """Check the envelope of an answer and give what is in it."""
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: Manifest = answer["response"]
    assert response["uid"] == UID
    assert set(response) <= {"uid", "allowed", "status", "patchType", "patch", "warnings"}
    assert ("patch" in response) == ("patchType" in response)
    return response


def patched(manifest: Manifest, response: Manifest) -> Manifest:
    """Do what the API server does with an answer that allows."""
    assert response["allowed"] is True
    assert response.get("patchType", "JSONPatch") == "JSONPatch"
    operations = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
    return applied(manifest, operations)


def applied(manifest: Manifest, operations: Any) -> Manifest:
    """Apply a JSON patch to a copy."""
    result: Manifest = jsonpatch.apply_patch(copy.deepcopy(manifest), list(operations))
    return result


def injected_pods() -> dict[str, Manifest]:
    """Give pods of every shape that get a proxy, by what is particular about them."""
    everything = ASKED | {
        "app-id": "another-app",
        "key-secret": "their-keys",
        "port": "18080",
        "admin-port": "19090",
        "read-only": "true",
        "duplicate-guard": "60s",
        "base-url": "https://registry.example",
        "admin-exposed": "true",
        "image": "registry.example/icr-proxy:0.1.0",
    }
    return {
        "deployment": pod(ASKED),
        "job": job_pod(ASKED),
        "with-config-map": pod(ASKED | {"config-map": "icr-proxy"}),
        "plain": pod(ASKED | {"mode": "plain"}),
        "plain-job": job_pod(ASKED | {"mode": "plain"}),
        "everything": pod(everything),
        "restricted": pod(ASKED, securityContext={"runAsNonRoot": True}, initContainers=None),
    }
