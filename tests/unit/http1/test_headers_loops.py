"""A request must not come back, and ends where it is told to."""

from __future__ import annotations

import pytest

from icr_proxy.errors import BadRequestError, LoopDetectedError
from icr_proxy.http1.headers import HOPS_MOST, Header, Hops, count_down

HOPS = Hops(b"icr-proxy-0123abcd")
ANOTHER = b"1.1 icr-proxy-99999999"


def test_our_entry_names_us_and_what_the_caller_spoke() -> None:
    assert HOPS.via(is_old=False) == (b"Via", b"1.1 icr-proxy-0123abcd")
    assert HOPS.via(is_old=True) == (b"Via", b"1.0 icr-proxy-0123abcd")


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([b"1.1 icr-proxy-0123abcd"], id="alone"),
        pytest.param([b"1.0 fred, HTTP/1.1 icr-proxy-0123abcd (x), 1.1 a"], id="in a list"),
        pytest.param([b"1.0 fred", b"1.1 icr-proxy-0123abcd"], id="in the second header"),
        pytest.param([ANOTHER] * (HOPS_MOST + 1), id="too many of us"),
        pytest.param([b", ".join([b"1.1 icr-proxy"] * (HOPS_MOST + 1))], id="too many old ones"),
    ],
)
def test_a_loop_ends(values: list[bytes]) -> None:
    with pytest.raises(LoopDetectedError):
        HOPS.check([(b"Via" if at else b"VIA", value) for at, value in enumerate(values)])


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="nobody"),
        pytest.param([b"1.1 varnish, 1.0 fred (icr-proxy)"] * 20, id="others"),
        pytest.param([ANOTHER] * HOPS_MOST, id="a sidecar and a gateway"),
    ],
)
def test_what_came_another_way_passes(values: list[bytes]) -> None:
    HOPS.check([(b"Via", value) for value in values])


@pytest.mark.parametrize(
    ("method", "received", "passed"),
    [
        pytest.param("OPTIONS", [], [], id="none"),
        pytest.param("OPTIONS", [(b"Max-Forwards", b"0")], None, id="ends here"),
        pytest.param(
            "OPTIONS",
            [(b"A", b"b"), (b"max-forwards", b"10"), (b"C", b"d")],
            [(b"A", b"b"), (b"max-forwards", b"9"), (b"C", b"d")],
            id="one less",
        ),
        pytest.param("GET", [(b"Max-Forwards", b"0")], [(b"Max-Forwards", b"0")], id="not for GET"),
    ],
)
def test_a_request_ends_where_it_is_told_to(
    method: str, received: list[Header], passed: list[Header] | None
) -> None:
    assert count_down(method, received) == passed


@pytest.mark.parametrize("values", [[b"x"], [b""], [b"-1"], [b"1", b"1"], [b"1" * 10]])
def test_max_forwards_is_one_number(values: list[bytes]) -> None:
    with pytest.raises(BadRequestError):
        count_down("OPTIONS", [(b"Max-Forwards", value) for value in values])
