from __future__ import annotations

import pytest

from icr_proxy.config.document import Mapping, Node, Scalar, Sequence, plain

TEXT = Scalar(1, "x")


@pytest.mark.parametrize(
    ("node", "value"),
    [
        pytest.param(Scalar(1, None), None, id="nothing"),
        pytest.param(TEXT, "x", id="text"),
        pytest.param(Mapping(1, {"k": (1, TEXT)}), {}, id="mapping"),
        pytest.param(Sequence(1, []), [], id="empty-list"),
        pytest.param(
            Sequence(1, [TEXT, Sequence(1, [TEXT]), Mapping(1, {})]), ["x", [], {}], id="list"
        ),
    ],
)
def test_a_node_is_reduced_to_what_one_value_can_be(node: Node, value: object) -> None:
    assert plain(node) == value
