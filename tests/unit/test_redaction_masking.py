"""Nothing that would let a reader in."""

from __future__ import annotations

import pytest

from icr_proxy.redaction import masked_target, masked_value

JWT = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        pytest.param("Accept", "*/*", "*/*", id="harmless"),
        pytest.param("Authorization", "Bearer crs_abc", "Bearer crs_… (masked)", id="ours"),
        pytest.param("authorization", f"bearer {JWT}", "bearer … (masked)", id="JWT"),
        pytest.param("Authorization", "Basic dXNlcjpwdw==", "Basic … (masked)", id="basic"),
        pytest.param("Authorization", "secret", "… (masked)", id="no scheme"),
        pytest.param("Authorization", "Bearer", "… (masked)", id="scheme alone"),
        pytest.param("Proxy-Authorization", "Basic x", "Basic … (masked)", id="proxy"),
        pytest.param("Cookie", "a=b", "… (masked)", id="cookie"),
        pytest.param("X-Api-Key", "k", "… (masked)", id="API key"),
        pytest.param("X_Auth_Token", "k", "… (masked)", id="underscores"),
        pytest.param("X-Note", "my token is cru_abc", "… (masked)", id="a token elsewhere"),
        pytest.param("X-Note", JWT, "… (masked)", id="a JWT elsewhere"),
        pytest.param("X-Note", "-----BEGIN PRIVATE KEY-----", "… (masked)", id="a key"),
        pytest.param("X-Note", "LS0tLS1CRUdJTg", "… (masked)", id="a key in base64"),
        pytest.param("X-ICR-Installation-Id", "3b0c", "3b0c", id="the tag"),
    ],
)
def test_values_that_are_credentials_are_hidden(name: str, value: str, shown: str) -> None:
    assert masked_value(name, value) == shown


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        pytest.param("/projects?limit=10&page=0", "/projects?limit=10&page=0", id="harmless"),
        pytest.param("/p?development", "/p?development", id="no value"),
        pytest.param("/p?a=1&access_token=x;b=2", "/p?a=1&access_token=***;b=2", id="by name"),
        pytest.param("/p?x=crs_abc", "/p?x=***", id="by value"),
        pytest.param("/p?acc%65ss_tok%2565n=x", "/p?acc%65ss_tok%2565n=***", id="escaped name"),
        pytest.param("/p?x=%63rs_abc", "/p?x=***", id="escaped value"),
        pytest.param("/p?token%3Dx&a=1", "/p?token%3D***&a=1", id="an escaped equals sign"),
        pytest.param("/p/crs_abc/q", "/p/***/q", id="in the path"),
        pytest.param("/p/PRIVATE KEY", "/p/PRIVATE KEY", id="words in the path"),
        pytest.param("http://u:pw@h/p", "http://***@h/p", id="user and password"),
    ],
)
def test_targets_are_shown_without_credentials(target: str, shown: str) -> None:
    assert masked_target(target) == shown
