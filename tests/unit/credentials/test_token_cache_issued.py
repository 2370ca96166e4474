from icr_proxy.credentials.access_token import AccessToken
from icr_proxy.credentials.token_cache import IssuedTokens
from icr_proxy.redaction import Secret

NOW = 1000.0


def token(number: int, *, expires_at: float = NOW + 7200) -> AccessToken:
    secret = Secret(f"crs_{number}")
    return AccessToken(
        secret=secret, minted_at=NOW, expires_at=expires_at, fingerprint=secret.fingerprint
    )


def texts(tokens: list[AccessToken]) -> list[str]:
    return [each.secret.reveal() for each in tokens]


def test_the_newest_come_first() -> None:
    issued = IssuedTokens(max_entries=10)
    for number in range(3):
        issued.add(token(number), now=NOW)

    assert texts(issued.drain(now=NOW)) == ["crs_2", "crs_1", "crs_0"]


def test_what_was_taken_is_gone() -> None:
    issued = IssuedTokens(max_entries=10)
    issued.add(token(1), now=NOW)
    issued.drain(now=NOW)

    assert issued.drain(now=NOW) == []


def test_what_has_expired_is_not_handed_over() -> None:
    issued = IssuedTokens(max_entries=10)
    issued.add(token(1, expires_at=NOW + 1), now=NOW)
    issued.add(token(2), now=NOW)

    assert texts(issued.drain(now=NOW + 1)) == ["crs_2"]


def test_what_has_expired_is_let_go_as_others_come() -> None:
    issued = IssuedTokens(max_entries=10)
    for number in range(100):
        issued.add(token(number, expires_at=NOW + number + 1), now=NOW + number)

    assert len(issued) == 1


def test_the_oldest_leave_when_there_are_too_many() -> None:
    issued = IssuedTokens(max_entries=2)
    for number in range(5):
        issued.add(token(number), now=NOW)

    assert texts(issued.drain(now=NOW)) == ["crs_4", "crs_3"]


def test_no_token_is_shown() -> None:
    issued = IssuedTokens(max_entries=2)
    issued.add(token(1), now=NOW)

    assert "crs_" not in repr(vars(issued))
