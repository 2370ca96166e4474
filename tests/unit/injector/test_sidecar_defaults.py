from __future__ import annotations

import pytest

from icr_proxy.injector.sidecar import Defaults, read_amounts


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
