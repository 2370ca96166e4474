from base64 import b64encode

import pytest

from icr_proxy.http1.headers import is_basic, read_basic


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param(b"Basic " + b64encode(b"user:word"), (b"user", b"word"), id="both"),
        pytest.param(b"basic\t" + b64encode(b"user:"), (b"user", b""), id="no password"),
        pytest.param(b"BASIC " + b64encode(b":word"), (b"", b"word"), id="no user"),
        pytest.param(b"Basic " + b64encode(b"a:b:c"), (b"a", b"b:c"), id="a colon in the password"),
        pytest.param(b"Basic " + b64encode(b"user"), None, id="no colon"),
        pytest.param(b"Basic", None, id="nothing"),
        pytest.param(b"Basic ???", None, id="not base64"),
        pytest.param(b"Basic dXNlcjo", None, id="cut off"),
        pytest.param(b"Basicdf dXNlcjo=", None, id="another scheme"),
        pytest.param(b"Bearer dXNlcjo=", None, id="bearer"),
    ],
)
def test_credentials_are_read(value: bytes, found: tuple[bytes, bytes] | None) -> None:
    assert read_basic(value) == found


def test_the_scheme_is_known_even_if_the_rest_is_not() -> None:
    assert is_basic(b"Basic ???")
    assert not is_basic(b"Bearer x")
