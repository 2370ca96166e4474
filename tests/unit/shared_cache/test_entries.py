from dataclasses import replace

import msgspec
import pytest

from icr_proxy.credentials.access_token import AccessToken
from icr_proxy.credentials.signing_key import derive, seal
from icr_proxy.identifiers import TokenKey
from icr_proxy.redaction import Secret
from icr_proxy.shared_cache.entries import (
    CacheScope,
    Invalidation,
    SealedContent,
    is_fresh,
    pack,
    read_invalidation,
    unpack,
    write_invalidation,
)

NOW = 1_700_000_000.0
KEY, OTHER = derive(b"one", purpose=b"p"), derive(b"two", purpose=b"p")
HERE = CacheScope(app="app", upstream="https://api.example")
ONE, TWO, APP = TokenKey("in-1"), TokenKey("in-2"), TokenKey(None)
SECRET = Secret("crs_1")
TOKEN = AccessToken(
    secret=SECRET,
    minted_at=NOW - 1000,
    expires_at=NOW + 2600,
    fingerprint=SECRET.fingerprint,
    organization="org",
    permissions={"inventory": "read"},
)
NONCE = b"n" * 12
VALUE = pack(HERE, ONE, TOKEN, sealing_key=KEY, nonce=NONCE)


def opened(
    value: bytes = VALUE, *, scope: CacheScope = HERE, key: TokenKey = ONE, seconds: float = 2600.0
) -> AccessToken | None:
    return unpack(scope, key, value, seconds=seconds, now=NOW, keys=[OTHER, KEY])


def forged(**changes: object) -> bytes:
    """Seal rightly, under the right name, what is not right."""
    inside = SealedContent(
        app="app", upstream="https://api.example", kind="installation", installation="in-1",
        token="crs_1", lifetime=3600.0, organization=None, permissions={},
    )  # fmt: skip
    text = msgspec.json.encode(msgspec.structs.replace(inside, **changes))
    head = b"1" + SECRET.fingerprint.encode()
    name = HERE.redis_keys(ONE).entry.encode() + b"\n" + head
    return head + seal(text, name=name, key=KEY, nonce=NONCE)


def test_a_token_comes_back_as_it_was_but_for_where_it_is_from() -> None:
    assert opened() == replace(TOKEN, is_shared=True)
    assert opened(forged()) is not None


def test_neither_value_nor_names_hold_the_token() -> None:
    redis_keys = HERE.redis_keys(ONE)

    assert b"crs_1" not in VALUE
    assert b"in-1" not in VALUE
    assert SECRET.reveal() not in f"{redis_keys} {HERE.channel} {HERE.probe}"


def test_clocks_that_differ_do_not_matter() -> None:
    """How long it lives is counted by Redis; only a lifetime is sealed, and no moment."""
    token = unpack(HERE, ONE, VALUE, seconds=100.0, now=NOW + 9000, keys=[KEY])

    assert token is not None
    assert token.expires_at == NOW + 9100
    assert token.minted_at == NOW + 5500


def test_nobody_makes_a_token_live_longer_than_it_was_made_for() -> None:
    token = opened(seconds=1e9)

    assert token is not None
    assert token.expires_at == NOW + 3600


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        pytest.param(HERE, TWO, id="another installation"),
        pytest.param(HERE, APP, id="the app"),
        pytest.param(replace(HERE, app="other"), ONE, id="another app"),
        pytest.param(replace(HERE, upstream="https://sandbox.example"), ONE, id="another API"),
    ],
)
def test_an_entry_that_was_moved_is_not_believed(scope: CacheScope, key: TokenKey) -> None:
    assert opened(scope=scope, key=key) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"installation": "in-2"}, {"installation": None}, {"kind": "app"}, {"app": "other"},
        {"upstream": "https://sandbox.example"}, {"token": "crs_2"}, {"token": ""},
        {"token": "crs 1"}, {"lifetime": 0.0}, {"lifetime": 7201.0},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_inside_is_checked_too(changes: dict[str, object]) -> None:
    assert opened(forged(**changes)) is None


def test_a_token_that_fits_its_fingerprint_but_no_header_is_not_believed() -> None:
    secret = Secret("crs\r\nX: y")
    token = replace(TOKEN, secret=secret, fingerprint=secret.fingerprint)

    assert opened(pack(HERE, ONE, token, sealing_key=KEY, nonce=NONCE)) is None


def sealed_text(text: bytes) -> bytes:
    head = VALUE[:13]
    name = HERE.redis_keys(ONE).entry.encode() + b"\n" + head
    return head + seal(text, name=name, key=KEY, nonce=NONCE)


@pytest.mark.parametrize(
    "value",
    [
        b"", b"1", b"garbage", VALUE[:20], VALUE + b"x", b"2" + VALUE[1:],
        VALUE[:5] + b"0" * 8 + VALUE[13:], sealed_text(b"{}"), sealed_text(b"\xff"),
        sealed_text(b"[" * 100_000),
    ],
    ids=["nothing", "one byte", "garbage", "cut off", "longer", "another version",
         "another fingerprint", "another shape", "no text", "nested beyond measure"],
)  # fmt: skip
def test_garbage_is_not_believed(value: bytes) -> None:
    assert opened(value) is None


def test_a_version_that_we_do_not_know_is_not_believed() -> None:
    head = b"2" + VALUE[1:13]
    name = HERE.redis_keys(ONE).entry.encode() + b"\n" + head

    assert opened(head + seal(b"{}", name=name, key=KEY, nonce=NONCE)) is None


@pytest.mark.parametrize("seconds", [0.0, -0.001, -0.002], ids=["now", "for ever", "gone"])
def test_without_a_time_to_live_it_is_not_believed(seconds: float) -> None:
    assert opened(seconds=seconds) is None


def test_another_key_does_not_open_it() -> None:
    assert unpack(HERE, ONE, VALUE, seconds=1.0, now=NOW, keys=[OTHER]) is None


@pytest.mark.parametrize(
    ("margin", "left", "fresh"),
    [
        pytest.param(300.0, 301.0, True, id="before the margin"),
        pytest.param(300.0, 300.0, False, id="at the margin"),
        pytest.param(900.0, 361.0, True, id="a tenth of its life at most"),
        pytest.param(0.0, 3.0, True, id="no margin"),
        pytest.param(0.0, 2.0, False, id="dead"),
    ],
)
def test_a_token_is_fresh_until_the_first_replica_would_renew_it(
    margin: float, left: float, *, fresh: bool
) -> None:
    token = replace(TOKEN, minted_at=NOW + left - 3600, expires_at=NOW + left)

    assert is_fresh(token, margin=margin, now=NOW) is fresh


def test_names_tell_apps_apis_and_installations_apart() -> None:
    scopes = [HERE, replace(HERE, app="other"), replace(HERE, upstream="https://b.example")]
    redis_keys = {
        scope.redis_keys(key).entry for scope in scopes for key in (ONE, TWO, APP, TokenKey("-"))
    }

    assert len(redis_keys) == 12
    assert HERE.redis_keys(ONE).entry == "icr-proxy:{app:e91cdb47052c:installation:in-1}:token"


NOTICE = Invalidation(sender="me", installation="in-1", fingerprint="0123456789ab")
DATA = write_invalidation(NOTICE, channel="drops", sealing_key=KEY, nonce=NONCE)


def test_a_notice_is_read_by_whoever_has_the_key() -> None:
    assert read_invalidation(DATA, channel="drops", keys=[OTHER, KEY]) == NOTICE
    assert NOTICE.key == TokenKey("in-1")
    assert b"in-1" not in DATA


@pytest.mark.parametrize(
    ("data", "channel", "keys"),
    [
        pytest.param(DATA, "others", [KEY], id="another channel"),
        pytest.param(DATA, "drops", [OTHER], id="another key"),
        pytest.param(b"drop everything", "drops", [KEY], id="garbage"),
        pytest.param(None, "drops", [KEY], id="nothing"),
        pytest.param(7, "drops", [KEY], id="a number"),
        pytest.param(
            seal(b"{}", name=b"drops", key=KEY, nonce=NONCE), "drops", [KEY], id="another shape"
        ),
    ],
)
def test_nobody_else_makes_us_drop_a_token(data: object, channel: str, keys: list[bytes]) -> None:
    assert read_invalidation(data, channel=channel, keys=keys) is None


def test_a_notice_of_an_older_version_is_about_the_same_installation() -> None:
    spelled = "3B0C9F0E-7D4B-4B59-8F0E-2B1F0F6F8C11"

    notice = Invalidation(sender="one", installation=spelled, fingerprint=None)

    assert notice.key == TokenKey(spelled.lower())
