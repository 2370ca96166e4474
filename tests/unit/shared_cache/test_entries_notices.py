import pytest

from icr_proxy.credentials.signing_key import derive, seal
from icr_proxy.identifiers import TokenKey
from icr_proxy.shared_cache.entries import Notice, read_notice, write_notice

KEY, OTHER = derive(b"one", purpose=b"p"), derive(b"two", purpose=b"p")
NOTICE = Notice(sender="me", installation="in-1", fingerprint="0123456789ab")
NONCE = b"n" * 12
DATA = write_notice(NOTICE, channel="drops", sealing_key=KEY, nonce=NONCE)


def test_a_notice_is_read_by_whoever_has_the_key() -> None:
    assert read_notice(DATA, channel="drops", keys=[OTHER, KEY]) == NOTICE
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
    assert read_notice(data, channel=channel, keys=keys) is None


def test_a_notice_of_an_older_version_is_about_the_same_installation() -> None:
    spelled = "3B0C9F0E-7D4B-4B59-8F0E-2B1F0F6F8C11"

    notice = Notice(sender="one", installation=spelled, fingerprint=None)

    assert notice.key == TokenKey(spelled.lower())
