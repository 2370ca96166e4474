import pytest

from icr_proxy.credentials.signing_key import derive, seal, unseal

ONE, TWO = derive(b"one", purpose=b"p"), derive(b"two", purpose=b"p")
NAME, NONCE = b"name", b"n" * 12
SEALED = seal(b"text", name=NAME, key=ONE, nonce=NONCE)


def test_what_is_sealed_opens_with_its_key_and_under_its_name() -> None:
    assert unseal(SEALED, name=NAME, keys=[ONE]) == b"text"
    assert b"text" not in SEALED


def test_any_of_several_keys_may_open() -> None:
    assert unseal(SEALED, name=NAME, keys=[TWO, ONE]) == b"text"


@pytest.mark.parametrize(
    ("sealed", "name", "keys"),
    [
        pytest.param(SEALED, b"other", [ONE], id="moved to another name"),
        pytest.param(SEALED, NAME, [TWO], id="another key"),
        pytest.param(SEALED, NAME, [], id="no key"),
        pytest.param(SEALED[:-1] + bytes([SEALED[-1] ^ 1]), NAME, [ONE], id="one bit changed"),
        pytest.param(b"x" + SEALED[1:], NAME, [ONE], id="another nonce"),
        pytest.param(SEALED[:20], NAME, [ONE], id="cut off"),
        pytest.param(SEALED[:12], NAME, [ONE], id="nonce only"),
        pytest.param(SEALED[:5], NAME, [ONE], id="less than a nonce"),
        pytest.param(b"", NAME, [ONE], id="nothing"),
        pytest.param(b"text" * 20, NAME, [ONE], id="garbage"),
    ],
)
def test_nothing_else_opens(sealed: bytes, name: bytes, keys: list[bytes]) -> None:
    assert unseal(sealed, name=name, keys=keys) is None


def test_a_key_for_one_purpose_is_not_the_key_for_another() -> None:
    assert derive(b"one", purpose=b"p") != derive(b"one", purpose=b"q")
    assert len({ONE, TWO}) == 2
