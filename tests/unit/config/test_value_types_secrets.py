"""What is secret, or stands where a secret may stand, is never quoted."""

from __future__ import annotations

import hashlib

import pytest

from icr_proxy.config.value_types import KeyHash, KeyText, Kind, ListOf, SecretText, StoreUrl, take
from icr_proxy.policy.caller_auth import new_key
from icr_proxy.redaction import Secret

HASH = "sha256:" + "0a" * 32
KEY = new_key()
URL = "rediss://icr:hunter2@redis.example:6380/1"


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        pytest.param(SecretText(), "word", Secret("word"), id="secret"),
        pytest.param(SecretText(), Secret("word"), Secret("word"), id="secret read before"),
        pytest.param(StoreUrl(), URL, Secret(URL), id="store"),
        pytest.param(StoreUrl(), Secret(URL), Secret(URL), id="store read before"),
        pytest.param(KeyHash(), HASH, HASH, id="hash"),
        pytest.param(KeyHash(), "sha256:" + "0A" * 32, HASH, id="hash in capitals"),
    ],
)
def test_what_is_fine_is_read(kind: Kind, raw: object, value: object) -> None:
    assert take(kind, raw) == (value, [])


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        pytest.param(SecretText(), ["word"], id="secret list"),
        pytest.param(SecretText(), {}, id="secret mapping"),
        pytest.param(StoreUrl(), [URL], id="store list"),
        pytest.param(StoreUrl(), "http://:hunter2@redis", id="store of another kind"),
        pytest.param(KeyHash(), KEY, id="the key itself"),
        pytest.param(KeyHash(), f"sha256:{KEY}", id="the key behind the word"),
        pytest.param(KeyHash(), "hunter2", id="a password"),
        pytest.param(KeyHash(), "0a" * 32, id="a hash without its name"),
        pytest.param(KeyHash(), HASH + "0", id="too long"),
        pytest.param(KeyHash(), HASH + "\n", id="line break"),
        pytest.param(KeyHash(), 12345678, id="number"),
        pytest.param(ListOf(KeyHash()), KEY, id="a key where a list belongs"),
        pytest.param(ListOf(KeyHash()), [KEY], id="a key in a list"),
    ],
)
def test_what_is_not_is_refused_without_being_shown(kind: Kind, raw: object) -> None:
    _, ((_, complaint),) = take(kind, raw)

    assert complaint.startswith("*** is not")
    assert KEY not in complaint
    assert "hunter2" not in complaint


@pytest.mark.parametrize("kind", [SecretText(), StoreUrl()], ids=["secret", "store"])
@pytest.mark.parametrize(
    "dress", ["{}\n", "{}\r\n", "\ufeff{}", "\ufeff{}\r\n"], ids=["LF", "CR LF", "mark", "all"]
)
def test_a_mark_and_a_line_break_at_the_end_are_not_part_of_it(kind: Kind, dress: str) -> None:
    assert take(kind, dress.format(URL)) == (Secret(URL), [])


@pytest.mark.parametrize("kind", [SecretText(), StoreUrl()], ids=["secret", "store"])
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        pytest.param(f'"{URL}"', "is in quotes", id="double quotes"),
        pytest.param(f"'{URL}'\n", "is in quotes", id="single quotes"),
        pytest.param(f"\ufeff'{URL}'", "is in quotes", id="quotes behind a mark"),
        pytest.param(f"{URL} ", "ends with a blank", id="blank at the end"),
        pytest.param(f"{URL}\udcff", "is not UTF-8 text", id="another encoding"),
        pytest.param(f"{URL}\0", "cannot be printed", id="NUL"),
        pytest.param("\ufeff\n", "is empty", id="a mark alone"),
        pytest.param(" ", "is empty", id="blank"),
    ],
)
def test_a_mistake_in_a_secret_is_named_without_it(kind: Kind, raw: str, words: str) -> None:
    _, ((_, complaint),) = take(kind, raw)

    assert words in complaint
    assert "hunter2" not in complaint


def test_a_key_as_text_stays_as_it_is() -> None:
    """`keys` finds the PEM in it, whatever is around."""
    assert take(KeyText(), '"-----BEGIN') == (Secret('"-----BEGIN'), [])
    assert take(KeyText(), '"-----BEGIN"\n') == (Secret('"-----BEGIN"\n'), [])


@pytest.mark.parametrize("text", [b"", b"\n", b"\r\n"])
def test_the_hash_of_a_variable_that_was_not_set_is_refused(text: bytes) -> None:
    _, ((_, complaint),) = take(KeyHash(), f"sha256:{hashlib.sha256(text).hexdigest()}")

    assert "of no key" in complaint


def test_what_is_shown_tells_which_it_is_and_no_more() -> None:
    assert SecretText().write(Secret("word")) == "***"
    assert StoreUrl().write(Secret(URL)) == "rediss://***@redis.example:6380/1"
    assert StoreUrl().write(Secret("unix://:hunter2@/run/r.sock")) == "unix://***@/run/r.sock"
    assert StoreUrl().write(Secret("redis://redis")) == "redis://redis"
    assert KeyHash().write(HASH) == "sha256:0a0a0a0a…"


def test_the_schema_takes_no_key() -> None:
    assert KeyHash().schema()["pattern"] == "^(?:sha256:[0-9a-fA-F]{64})$"
