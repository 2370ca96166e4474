from dataclasses import FrozenInstanceError

import pytest

from icr_proxy.credentials.access_token import AccessToken
from icr_proxy.identifiers import TokenKey
from icr_proxy.redaction import Secret


@pytest.mark.parametrize(
    ("key", "kind", "path"),
    [
        pytest.param(TokenKey(None), "app", b"/app/accessTokens", id="the app's own"),
        pytest.param(
            TokenKey("in-1_A"), "installation", b"/app/installations/in-1_A/accessTokens", id="one"
        ),
    ],
)
def test_a_key_knows_its_kind_and_where_its_token_is_minted(
    key: TokenKey, kind: str, path: bytes
) -> None:
    assert (key.kind, key.path) == (kind, path)


@pytest.mark.parametrize(
    "other",
    [TokenKey("in-2"), TokenKey("IN-1"), TokenKey("in-1 "), TokenKey(""), TokenKey(None)],
    ids=lambda key: repr(key.installation),
)
def test_nothing_but_the_very_same_installation_shares_a_key(other: TokenKey) -> None:
    assert other != TokenKey("in-1")


def test_equal_keys_find_one_another() -> None:
    assert {TokenKey("in-1"): "here"}[TokenKey("in-1")] == "here"


def test_a_key_beyond_the_alphabet_never_becomes_a_path() -> None:
    with pytest.raises(UnicodeEncodeError):
        _ = TokenKey("in-ü").path


def token() -> AccessToken:
    return AccessToken(
        secret=Secret("crs_planted"), minted_at=1.0, expires_at=2.0, fingerprint="0123456789ab"
    )


def test_a_token_does_not_show_its_secret() -> None:
    assert "planted" not in repr(token())


def test_a_token_is_never_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        token().expires_at = 3.0  # type: ignore[misc]  # the point of the test
