import pytest

from icr_proxy.credentials.access_token import AccessToken, CachedToken
from icr_proxy.redaction import Secret

NOW = 1_700_000_000.0


def token(lifetime: float) -> AccessToken:
    secret = Secret("crs_planted")
    return AccessToken(
        secret=secret, minted_at=NOW, expires_at=NOW + lifetime, fingerprint=secret.fingerprint
    )


@pytest.mark.parametrize(
    ("lifetime", "chance", "due", "dead"),
    [
        pytest.param(7200.0, 0.0, 300.0, 2.0, id="two-hours"),
        pytest.param(7200.0, 1.0, 180.0, 2.0, id="two-hours-latest"),
        pytest.param(600.0, 0.0, 60.0, 2.0, id="a-tenth-of-its-life"),
        pytest.param(2.0, 0.0, 0.2, 0.1, id="two-seconds"),
        pytest.param(2.0, 1.0, 0.12, 0.1, id="two-seconds-latest"),
    ],
)
def test_a_token_is_due_and_dead_so_long_before_its_end(
    lifetime: float, chance: float, due: float, dead: float
) -> None:
    cached = CachedToken.from_token(token(lifetime), generation=1, margin=300.0, chance=chance)

    assert NOW + lifetime - cached.due_at == pytest.approx(due)
    assert NOW + lifetime - cached.dead_at == pytest.approx(dead)


def test_what_carries_the_token_does_not_show_it() -> None:
    cached = CachedToken.from_token(token(60.0), generation=7, margin=1.0, chance=0.0)

    assert cached.authorization == b"Bearer crs_planted"
    assert "planted" not in repr(cached)
