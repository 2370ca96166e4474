from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from icr_proxy.config.spec import KeySpec, dotted, leaves, lookup_key, parts, variable
from icr_proxy.config.value_types import Count

NUMBER = Count(1, 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    number: Annotated[int, KeySpec(NUMBER, "A number.")] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    word: Annotated[int, "no key of ours", KeySpec(NUMBER, "Another.")]
    inner: Inner = Inner()
    perhaps: Inner | None = None
    several: tuple[Inner, ...] = ()


def test_the_parts_of_a_section_are_keys_sections_and_lists_of_sections() -> None:
    shape = parts(Outer)

    assert [(each.name, each.section, each.many) for each in shape.values()] == [
        ("word", None, False),
        ("inner", Inner, False),
        ("perhaps", Inner, False),
        ("several", Inner, True),
    ]
    assert [each.required for each in shape.values()] == [True, False, False, False]
    assert [each.optional for each in shape.values()] == [False, False, True, False]


def test_the_keys_of_a_section_are_walked_in_their_order() -> None:
    assert [dotted(path) for path, _, _ in leaves(Outer)] == [
        "word",
        "inner.number",
        "perhaps.number",
        "several[0].number",
    ]


@pytest.mark.parametrize(
    ("path", "known"),
    [
        pytest.param((), False, id="nothing"),
        pytest.param(("",), False, id="empty-name"),
        pytest.param(("inner",), False, id="section-is-no-key"),
        pytest.param(("several",), False, id="list-is-no-key"),
        pytest.param(("several", "0"), False, id="item-is-no-key"),
        pytest.param(("several", "x", "number"), False, id="no-index"),
        pytest.param(("several", "01", "number"), False, id="index-with-zero"),
        pytest.param(("several", "100", "number"), False, id="index-out-of-reason"),
        pytest.param(("word", "further"), False, id="below-a-key"),
        pytest.param(("inner", "other"), False, id="unknown"),
        pytest.param(("word",), True, id="key"),
        pytest.param(("inner", "number"), True, id="inner-key"),
        pytest.param(("several", "12", "number"), True, id="key-of-item"),
    ],
)
def test_a_path_leads_to_a_key_or_nowhere(path: Any, known: bool) -> None:  # noqa: FBT001
    assert (lookup_key(Outer, path) is not None) is known


def test_a_path_has_two_spellings() -> None:
    path = ("listeners", "0", "bind")

    assert dotted(path) == "listeners[0].bind"
    assert variable(path) == "ICR_PROXY_LISTENERS__0__BIND"
