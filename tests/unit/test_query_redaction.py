"""Values of named parameters are hidden however a server would read the name."""

from __future__ import annotations

import random
from urllib.parse import quote

import pytest

from icr_proxy.query_redaction import QueryRedaction

SECRET = "S3CRET"
hide_token = QueryRedaction(("token",))


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        pytest.param("a=1&token=S3CRET", "a=1&token=***", id="one"),
        pytest.param("TOKEN=S3CRET&b=2", "TOKEN=***&b=2", id="whatever its case"),
        pytest.param("%74oken=S3CRET", "%74oken=***", id="escaped"),
        pytest.param("%2574oken=S3CRET", "%2574oken=***", id="escaped twice"),
        pytest.param("%u0074oken=S3CRET", "%u0074oken=***", id="escaped as IIS reads it"),
        pytest.param("a=1;token=S3CRET", "a=1;token=***", id="behind a semicolon"),
        pytest.param("a=1%26token=S3CRET", "a=***", id="behind an escaped ampersand"),
        pytest.param("a=1%3Btoken%3DS3CRET", "a=***", id="all separators escaped"),
        pytest.param("token%3DS3CRET", "token=***", id="an escaped equals sign"),
        pytest.param("token%253DS3CRET=x", "token=***", id="one that is escaped twice"),
        pytest.param("token=S3;CRET&b=2", "token=***&b=2", id="a semicolon in the value"),
        pytest.param("token=a=S3CRET", "token=***", id="an equals sign in the value"),
        pytest.param("token[]=S3CRET", "token[]=***", id="a list"),
        pytest.param("token[0]=S3CRET", "token[0]=***", id="an item"),
        pytest.param("token[a][b]=S3CRET", "token[a][b]=***", id="a nested item"),
        pytest.param("token%5B%5D=S3CRET", "token%5B%5D=***", id="an escaped list"),
        pytest.param("token[=S3CRET", "token[=***", id="half a list"),
        pytest.param("token.x=S3CRET", "token.x=***", id="a member"),
        pytest.param("user[token]=S3CRET", "user[token]=***", id="a member of another"),
        pytest.param("token%20=S3CRET", "token%20=***", id="a blank behind"),
        pytest.param("+token+=S3CRET", "+token+=***", id="blanks as plus signs"),
        pytest.param("%09token=S3CRET", "%09token=***", id="a tab before"),
        pytest.param("%EF%BB%BFtoken=S3CRET", "%EF%BB%BFtoken=***", id="a byte order mark"),
        pytest.param("to%E2%80%8Bken=S3CRET", "to%E2%80%8Bken=***", id="a blank of no width"),
        pytest.param("token%00=S3CRET", "token%00=***", id="a NUL behind"),
        pytest.param("token%00x=S3CRET", "token%00x=***", id="cut at a NUL"),
        pytest.param("%EF%BD%94oken=S3CRET", "%EF%BD%94oken=***", id="a wide letter"),
        pytest.param("to%E2%84%AAen=S3CRET", "to%E2%84%AAen=***", id="the sign for kelvin"),
        pytest.param("?token=S3CRET", "?token=***", id="a second question mark"),
        pytest.param("a=1?token=S3CRET", "a=***", id="a question mark in a value"),
        pytest.param("=&&token=S3CRET&", "=&&token=***&", id="empty names"),
        pytest.param("token=", "token=***", id="an empty value"),
        pytest.param("token", "token", id="no value"),
        pytest.param("token&a=1", "token&a=1", id="no value before another"),
        pytest.param("tokens=1&mytoken=2&to=ken", "tokens=1&mytoken=2&to=ken", id="other names"),
        pytest.param("a=token&b=%41+x", "a=token&b=%41+x", id="the name as a value"),
    ],
)
def test_values_of_a_named_parameter_are_hidden(query: str, shown: str) -> None:
    assert hide_token(query) == shown


@pytest.mark.parametrize("name", ["my_token", "my.token", "my-token", "my[token]", "My%20token"])
@pytest.mark.parametrize(
    "sent", ["my_token", "my.token", "my+token", "my[token", "MY-TOKEN", "my%20token"]
)
def test_names_are_the_same_by_the_rules_of_frameworks(name: str, sent: str) -> None:
    """PHP reads blanks, points and brackets in names as underscores."""
    assert QueryRedaction((name,))(f"{sent}={SECRET}") == f"{sent}=***"


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        pytest.param("a=1&b=2=3", "a=***&b=***", id="all"),
        pytest.param("a%3D1&b;c=2", "a=***&b;c=***", id="however they are written"),
        pytest.param("a&b", "a&b", id="names alone"),
    ],
)
def test_the_values_of_all_can_be_hidden(query: str, shown: str) -> None:
    assert QueryRedaction(None)(query) == shown


def test_nothing_is_hidden_if_nothing_is_named() -> None:
    assert QueryRedaction(())("token=1;a=%41") == "token=1;a=%41"
    assert not QueryRedaction(())
    assert QueryRedaction(None)


@pytest.mark.parametrize("seed", range(200))
def test_no_spelling_shows_the_value(seed: int) -> None:
    chance = random.Random(seed)
    decorations = ["", " ", "\t", "\ufeff", "[]", "[0]", ".x", "\0", "\u200b"]

    for _ in range(20):
        name = "".join(chance.choice([char, char.upper()]) for char in "token")
        name = chance.choice(["", "+", "?"]) + name + chance.choice(decorations)
        name = quote(name, safe="?+[].")
        for _ in range(chance.randint(0, 2)):
            name = "".join(f"%{ord(char):02x}" if chance.random() < 0.2 else char for char in name)
        equals = chance.choice(["=", "=", "%3d", "%253D"])
        before = chance.choice(["", "a=1&", "a=1;", "x&", "a=1%26", "=;;", "a%3D1%3b"])
        after = chance.choice(["", "&b=2", ";b=2", "%26b=2"])

        assert SECRET not in hide_token(f"{before}{name}{equals}{SECRET}{after}")
