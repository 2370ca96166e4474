from __future__ import annotations

import json

import msgspec
import pytest

from icr_proxy.errors import BadRequestError
from icr_proxy.injector.pods import read_pod
from tests.support.pods import Manifest, job_pod, parsed, pod


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
