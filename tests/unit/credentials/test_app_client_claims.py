import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.credentials.app_client import app_claims


def test_the_claims_are_those_the_documentation_requires() -> None:
    claims = app_claims("app-7", now=1_700_000_000.0)

    assert claims == {
        "iat": 1_699_999_940,
        "exp": 1_700_000_540,
        "iss": "app-7",
        "alg": "RS256",
    }


@pytest.mark.parametrize(
    "now", [0.0, 0.999, 1_700_000_000.999999], ids=["epoch", "fraction", "late in a second"]
)
def test_times_are_whole_seconds(now: float) -> None:
    claims = app_claims("app", now=now)

    assert (type(claims["iat"]), type(claims["exp"])) == (int, int)


@given(
    now=st.floats(min_value=1e9, max_value=4e9),
    drift=st.floats(min_value=-59, max_value=59),
)
def test_a_clock_up_to_a_minute_off_makes_claims_the_server_takes(now: float, drift: float) -> None:
    """`exp` is at most 600 s ahead and `iat` not in the future, by the server's clock."""
    claims = app_claims("app", now=now + drift)

    assert isinstance(claims["exp"], int)
    assert isinstance(claims["iat"], int)
    assert 0 < claims["exp"] - now <= 600
    assert claims["iat"] <= now
