from __future__ import annotations

import base64
import json

import pytest

from icr_proxy.errors import BadRequestError
from icr_proxy.injector.admission_review import (
    AdmissionVerdict,
    ResourceKind,
    read_request,
    write_verdict,
)
from tests.support.pods import UID, pod, response_in, review


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"\xff\xfe", id="no-utf-8"),
        pytest.param(b'{"apiVersion":"\xff"}', id="no-utf-8-inside"),
        pytest.param(b"[" * 200_000, id="deep"),
        pytest.param(b'{"request":{"object":' + b"[" * 200_000, id="deep-inside"),
        pytest.param(json.dumps(review(pod()) | {"kind": "Pod"}).encode(), id="another-kind"),
        pytest.param(
            json.dumps(review(pod()) | {"apiVersion": "admission.k8s.io/v1beta1"}).encode(),
            id="another-version",
        ),
        pytest.param(json.dumps(review(pod()) | {"request": None}).encode(), id="no-request"),
        pytest.param(json.dumps(review(pod(), uid="")).encode(), id="no-uid"),
        pytest.param(json.dumps(review(pod(), uid=1)).encode(), id="uid-a-number"),
        pytest.param(json.dumps(review(pod(), kind="Pod")).encode(), id="kind-a-word"),
        pytest.param(json.dumps(review(pod(), dryRun="no")).encode(), id="dry-run-a-word"),
    ],
)
def test_what_is_no_review_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        read_request(body)


def test_a_review_is_read() -> None:
    found = read_request(json.dumps(review(pod(), dryRun=True)).encode())

    assert (found.uid, found.namespace, found.operation) == (UID, "shop", "CREATE")
    assert found.kind == ResourceKind(version="v1", kind="Pod")
    assert found.dry_run is True
    assert json.loads(bytes(found.object)) == pod()


def test_what_is_allowed_untouched_has_no_patch() -> None:
    response = response_in(write_verdict(AdmissionVerdict(result="untouched"), uid=UID))

    assert response == {"uid": UID, "allowed": True}


def test_a_patch_is_in_base64() -> None:
    operation: dict[str, object] = {"op": "remove", "path": "/a"}

    response = response_in(
        write_verdict(AdmissionVerdict(result="injected", patch=(operation,)), uid=UID)
    )

    assert json.loads(base64.b64decode(response["patch"])) == [operation]


def test_a_refusal_says_why() -> None:
    verdict = AdmissionVerdict(result="refused", code=422, message="icr-proxy: no")

    response = response_in(write_verdict(verdict, uid=UID))

    assert response["allowed"] is False
    assert response["status"] == {"code": 422, "message": "icr-proxy: no"}


def test_long_warnings_are_cut_where_the_api_would_cut_them() -> None:
    verdict = AdmissionVerdict(result="untouched", warnings=("x" * 300,))

    assert response_in(write_verdict(verdict, uid=UID))["warnings"] == ["x" * 256]


def test_no_pod_can_fill_the_log_by_what_is_wrong_with_it() -> None:
    verdict = AdmissionVerdict(result="refused", message="x" * 10_000, warnings=("y",) * 100)

    assert (len(str(verdict.message)), len(verdict.warnings)) == (2048, 8)
