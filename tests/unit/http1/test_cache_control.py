"""To a cache in front of the proxy, an answer to one caller must not be everybody's."""

from __future__ import annotations

import pytest

from icr_proxy.http1.cache_control import PRIVATE_LINE, TARGETED, made_private, may_be_shared


@pytest.mark.parametrize(
    ("values", "shared"),
    [
        pytest.param([], True, id="nothing"),
        pytest.param([b""], True, id="empty"),
        pytest.param([b"max-age=60"], True, id="max-age"),
        pytest.param([b"no-cache"], True, id="no-cache"),
        pytest.param([b"proxy-revalidate, max-age=1"], True, id="proxy-revalidate"),
        pytest.param([b"private"], False, id="private"),
        pytest.param([b"max-age=1 , private"], False, id="private among others"),
        pytest.param([b"max-age=1", b"private"], False, id="private in another line"),
        pytest.param([b'private="set-cookie"'], True, id="private for a field"),
        pytest.param([b"no-store"], False, id="no-store"),
        pytest.param([b"must-understand, no-store"], True, id="no-store for some"),
        pytest.param([b"public"], False, id="public"),
        pytest.param([b"max-age=60,\tpublic"], False, id="public among others"),
        pytest.param([b"must-revalidate"], False, id="must-revalidate"),
        pytest.param([b"s-maxage=60"], False, id="s-maxage"),
        pytest.param([b"s-maxage = 60"], False, id="s-maxage with blanks"),
        pytest.param([b"s-maxage"], True, id="s-maxage without a number"),
        pytest.param([b"s-maxage=x"], True, id="s-maxage with something else"),
        pytest.param([b"publicly"], True, id="another word"),
        pytest.param([b"x-public, not public"], True, id="other words"),
        pytest.param([b'ext="a, public"'], True, id="in a string"),
        pytest.param([b'ext="a\\", public, "'], True, id="behind an escaped quote"),
        pytest.param([b'ext="a, public'], True, id="in a string without an end"),
        pytest.param([b'ext="a', b"public"], True, id="swallowed by one"),
        pytest.param([b'ext="a", public'], False, id="behind a string"),
    ],
)
def test_an_answer_is_private_unless_the_api_allows_more(
    values: list[bytes], *, shared: bool
) -> None:
    """RFC 9111, 3.5."""
    assert may_be_shared(tuple(values)) is shared


@pytest.mark.parametrize("name", TARGETED)
def test_fields_for_certain_caches_only_are_dropped(name: bytes) -> None:
    section = b"\r\nA: b\r\n" + name.title() + b" : max-age=60\r\nC: d"

    made = made_private(section, (b"public",), is_targeted=True)

    assert made == b"\r\nA: b\r\nC: d"


def test_a_string_without_an_end_does_not_swallow_the_line() -> None:
    section = b'\r\nCache-Control: ext="a'

    assert made_private(section, (b'ext="a',), is_targeted=False) == PRIVATE_LINE + section
