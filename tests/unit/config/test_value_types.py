from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.config import fields
from icr_proxy.config.value_types import (
    Boolean,
    Choice,
    Count,
    Duration,
    KeyHash,
    KeyText,
    ListOf,
    PathText,
    SecretText,
    Size,
    StoreUrl,
    Text,
    ValueType,
    parse_value,
    read_duration,
    read_size,
    write_duration,
    write_size,
)
from icr_proxy.policy.caller_auth import new_key
from icr_proxy.redaction import Secret

WORD = Text(what="a word", pattern="[a-z]+", example="abc", parse=str.upper)
ALL = {name: kind for name, kind in vars(fields).items() if name.isupper() and name[0] != "_"}


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        pytest.param(WORD, "abc", "ABC", id="text-parsed"),
        pytest.param(Boolean(), True, True, id="switch-boolean"),
        pytest.param(Boolean(), "false", False, id="switch-false"),
        pytest.param(Boolean(), "0", False, id="switch-zero"),
        pytest.param(Boolean(), "No", False, id="switch-no"),
        pytest.param(Boolean(), "OFF", False, id="switch-off"),
        pytest.param(Boolean(), "True", True, id="switch-true"),
        pytest.param(Boolean(), "1", True, id="switch-one"),
        pytest.param(Boolean(), "yes", True, id="switch-yes"),
        pytest.param(Boolean(), "on", True, id="switch-on"),
        pytest.param(Choice(("a", "b")), "b", "b", id="choice"),
        pytest.param(Choice(("info", "error")), "INFO", "info", id="choice in capitals"),
        pytest.param(Choice(("info", "error")), "Error", "error", id="choice with a capital"),
        pytest.param(Count(1, 9), "1", 1, id="count-lowest"),
        pytest.param(Count(1, 9), 9, 9, id="count-highest"),
        pytest.param(Duration(zero=True), "0", 0.0, id="duration-zero-allowed"),
        pytest.param(Duration(), "8784h", 8784 * 3600.0, id="duration-longest"),
        pytest.param(Size(low=0), "0", 0, id="size-zero-allowed"),
        pytest.param(Size(low=1024), "1KiB", 1024, id="size-lowest"),
        pytest.param(PathText(), "/x/y.pem", Path("/x/y.pem"), id="path"),
        pytest.param(PathText(), Path("y"), Path("y"), id="path-read-before"),
        pytest.param(ListOf(WORD), [], (), id="list-empty"),
        pytest.param(ListOf(WORD), ["a", "b"], ("A", "B"), id="list"),
        pytest.param(ListOf(Count(1, 9)), (1, "2"), (1, 2), id="list-read-before"),
    ],
)
def test_a_value_is_read(kind: ValueType, raw: object, value: object) -> None:
    assert parse_value(kind, raw) == (value, [])
    assert kind.read(raw) == value


@pytest.mark.parametrize(
    ("kind", "raw", "complaint"),
    [
        pytest.param(WORD, "", "is empty; give it a value or leave it out", id="empty"),
        pytest.param(WORD, " \n", "is empty; give it a value or leave it out", id="blank"),
        pytest.param(WORD, 5, "5 is not a word", id="text-number"),
        pytest.param(WORD, {}, "a mapping is not a word", id="text-mapping"),
        pytest.param(WORD, "a b", '"a b" is not a word, as in abc', id="text-shape"),
        pytest.param(WORD, "abc\n", "*** is not a word, as in abc", id="text-line-break"),
        pytest.param(Boolean(), "maybe", '"maybe" is neither true nor false', id="switch"),
        pytest.param(Boolean(), 1, "1 is neither true nor false", id="switch-number"),
        pytest.param(Choice(("a", "b")), "c", '"c" is none of a, b', id="choice"),
        pytest.param(Choice(("a", "b")), [], "a list is none of a, b", id="choice-list"),
        pytest.param(Count(1, 9), "0", '"0" is not between 1 and 9', id="count-low"),
        pytest.param(Count(1, 9), 10, "10 is not between 1 and 9", id="count-high"),
        pytest.param(Count(1, 9), "07", '"07" is not a whole number', id="count-octal"),
        pytest.param(Count(1, 9), "1.0", '"1.0" is not a whole number', id="count-fraction"),
        pytest.param(Count(1, 9), True, "true is not a whole number", id="count-boolean"),
        pytest.param(
            Duration(),
            "5 minutes",
            '"5 minutes" is not a duration; write seconds or 500ms, 10s, 5m, 2h',
            id="duration",
        ),
        pytest.param(
            Duration(), "0s", '"0s" is no time at all; it must be more than 0', id="duration-zero"
        ),
        pytest.param(Duration(), "9999h", '"9999h" is longer than a year', id="duration-year"),
        pytest.param(
            Size(), "64KB", '"64KB" is not a size; write bytes or 64KiB, 1MiB, 2GiB', id="size"
        ),
        pytest.param(Size(low=1024), "1", '"1" is less than 1KiB', id="size-low"),
        pytest.param(PathText(), 5, "5 is not a path", id="path-number"),
        pytest.param(PathText(), "a\0", r'"a\u0000" is not a path', id="path-nul"),
        pytest.param(
            PathText(),
            "~/app.pem",
            '"~/app.pem" is not a whole path; ~ stands for nobody\'s home here',
            id="path-home",
        ),
        pytest.param(
            PathText(),
            "-----BEGIN PRIVATE KEY-----\nMIIE",
            "*** is no path but the content of a file; write where the file is",
            id="path-that-is-the-key",
        ),
        pytest.param(ListOf(WORD), "a", '"a" is not a list; write [one, another]', id="list-text"),
    ],
)
def test_what_is_wrong_with_a_value_is_one_sentence(
    kind: ValueType, raw: object, complaint: str
) -> None:
    assert parse_value(kind, raw) == (None, [("", complaint)])


def test_every_wrong_item_of_a_list_is_told_with_its_place() -> None:
    _, complaints = parse_value(ListOf(WORD), ["a", "5", None])

    assert complaints == [
        ("[1]", '"5" is not a word, as in abc'),
        ("[2]", "nothing is not a word"),
    ]


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        pytest.param(WORD, "ABC", "ABC", id="text"),
        pytest.param(Boolean(), True, True, id="switch"),
        pytest.param(Choice(("a", "b")), "b", "b", id="choice"),
        pytest.param(Count(1, 9), 5, 5, id="count"),
        pytest.param(Duration(), 300.0, "5m", id="duration"),
        pytest.param(Size(), 1024, "1KiB", id="size"),
        pytest.param(PathText(), Path("/x"), "/x", id="path"),
        pytest.param(ListOf(Size()), (1024, 5), ["1KiB", "5B"], id="list"),
    ],
)
def test_a_value_is_written_as_in_a_file(kind: ValueType, value: Any, written: object) -> None:
    assert kind.write(value) == written


@pytest.mark.parametrize("kind", ALL.values(), ids=list(ALL))
def test_the_example_of_a_kind_is_fine_and_its_schema_an_object(kind: ValueType) -> None:
    example: Any = [kind.item.example] if isinstance(kind, ListOf) else kind.example

    assert parse_value(kind, example)[1] == []
    assert isinstance(kind.schema(), dict)


def test_the_example_of_a_list_shows_an_item() -> None:
    assert ListOf(WORD).example == "[abc]"


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("kind", [fields.APP_ID, fields.BASE_URL, fields.FILE, fields.HOSTS])
def test_quotes_around_a_value_are_named_as_the_mistake(kind: ValueType, quote: str) -> None:
    """`docker --env-file` keeps them, and `app.id` would take them."""
    _, ((_, complaint),) = parse_value(kind, f"{quote}https://a{quote}")

    assert "is in quotes" in complaint


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
def test_what_is_fine_is_read(kind: ValueType, raw: object, value: object) -> None:
    assert parse_value(kind, raw) == (value, [])


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
def test_what_is_not_is_refused_without_being_shown(kind: ValueType, raw: object) -> None:
    _, ((_, complaint),) = parse_value(kind, raw)

    assert complaint.startswith("*** is not")
    assert KEY not in complaint
    assert "hunter2" not in complaint


@pytest.mark.parametrize("kind", [SecretText(), StoreUrl()], ids=["secret", "store"])
@pytest.mark.parametrize(
    "dress", ["{}\n", "{}\r\n", "\ufeff{}", "\ufeff{}\r\n"], ids=["LF", "CR LF", "mark", "all"]
)
def test_a_mark_and_a_line_break_at_the_end_are_not_part_of_it(kind: ValueType, dress: str) -> None:
    assert parse_value(kind, dress.format(URL)) == (Secret(URL), [])


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
def test_a_mistake_in_a_secret_is_named_without_it(kind: ValueType, raw: str, words: str) -> None:
    _, ((_, complaint),) = parse_value(kind, raw)

    assert words in complaint
    assert "hunter2" not in complaint


def test_a_key_as_text_stays_as_it_is() -> None:
    """`keys` finds the PEM in it, whatever is around."""
    assert parse_value(KeyText(), '"-----BEGIN') == (Secret('"-----BEGIN'), [])
    assert parse_value(KeyText(), '"-----BEGIN"\n') == (Secret('"-----BEGIN"\n'), [])


@pytest.mark.parametrize("text", [b"", b"\n", b"\r\n"])
def test_the_hash_of_a_variable_that_was_not_set_is_refused(text: bytes) -> None:
    _, ((_, complaint),) = parse_value(KeyHash(), f"sha256:{hashlib.sha256(text).hexdigest()}")

    assert "of no key" in complaint


def test_what_is_shown_tells_which_it_is_and_no_more() -> None:
    assert SecretText().write(Secret("word")) == "***"
    assert StoreUrl().write(Secret(URL)) == "rediss://***@redis.example:6380/1"
    assert StoreUrl().write(Secret("unix://:hunter2@/run/r.sock")) == "unix://***@/run/r.sock"
    assert StoreUrl().write(Secret("redis://redis")) == "redis://redis"
    assert KeyHash().write(HASH) == "sha256:0a0a0a0a…"


def test_the_schema_takes_no_key() -> None:
    assert KeyHash().schema()["pattern"] == "^(?:sha256:[0-9a-fA-F]{64})$"


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        pytest.param("0", 0, id="zero"),
        pytest.param("0s", 0, id="zero-with-unit"),
        pytest.param(0, 0, id="number-zero"),
        pytest.param("1ms", 0.001, id="one-millisecond"),
        pytest.param("500ms", 0.5, id="milliseconds"),
        pytest.param("1001ms", 1.001, id="milliseconds-exact"),
        pytest.param("10", 10, id="bare-text"),
        pytest.param(10, 10, id="integer"),
        pytest.param(0.25, 0.25, id="float"),
        pytest.param("10s", 10, id="seconds"),
        pytest.param("1.5s", 1.5, id="fraction"),
        pytest.param("5m", 300, id="minutes"),
        pytest.param("2h", 7200, id="hours"),
        pytest.param(" 5m\n", 300, id="white-space-around"),
    ],
)
def test_a_duration_is_read(raw: object, seconds: float) -> None:
    assert read_duration(raw) == seconds


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("", id="empty"),
        pytest.param(None, id="nothing"),
        pytest.param(True, id="boolean"),
        pytest.param(math.inf, id="infinite"),
        pytest.param(math.nan, id="not-a-number"),
        pytest.param(-1, id="negative-number"),
        pytest.param("-1s", id="negative-text"),
        pytest.param("+1s", id="signed"),
        pytest.param("5 m", id="space-inside"),
        pytest.param("5 minutes", id="words"),
        pytest.param("5M", id="capital-could-be-months"),
        pytest.param("1h30m", id="compound"),
        pytest.param("010s", id="leading-zero"),
        pytest.param(".5s", id="no-whole-part"),
        pytest.param("5.s", id="no-fraction"),
        pytest.param("1e3", id="exponent"),
        pytest.param("1_000", id="underscore"),
        pytest.param("٥s", id="arabic-digit"),  # noqa: RUF001 - str.isdigit takes it for a digit
        pytest.param("9" * 5000, id="endless"),
        pytest.param([5], id="list"),
    ],
)
def test_what_is_no_duration_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="not a"):
        read_duration(raw)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(0, "0s", id="zero"),
        pytest.param(0.0005, "0.0005s", id="below-a-millisecond"),
        pytest.param(0.5, "500ms", id="milliseconds"),
        pytest.param(1.5, "1.5s", id="fraction"),
        pytest.param(75, "75s", id="seconds"),
        pytest.param(300, "5m", id="minutes"),
        pytest.param(3600, "1h", id="hours"),
    ],
)
def test_a_duration_is_written_the_short_way(seconds: float, text: str) -> None:
    assert write_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**11))
def test_what_is_written_of_a_duration_reads_as_the_same(milliseconds: int) -> None:
    seconds = milliseconds / 1000

    assert read_duration(write_duration(seconds)) == seconds


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        seconds = read_duration(text)
    except ValueError:
        return
    assert seconds >= 0


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        pytest.param(0, 0, id="zero"),
        pytest.param("0", 0, id="zero-text"),
        pytest.param("1", 1, id="bare-text"),
        pytest.param(1000, 1000, id="integer"),
        pytest.param("512B", 512, id="bytes"),
        pytest.param("64KiB", 65536, id="kibibytes"),
        pytest.param("1MiB", 1 << 20, id="mebibytes"),
        pytest.param("2GiB", 2 << 30, id="gibibytes"),
    ],
)
def test_a_size_is_read(raw: object, size: int) -> None:
    assert read_size(raw) == size


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("", id="empty"),
        pytest.param(None, id="nothing"),
        pytest.param(True, id="boolean"),
        pytest.param(1.5, id="float"),
        pytest.param(-1, id="negative"),
        pytest.param("64KB", id="ambiguous-unit"),
        pytest.param("64k", id="short-unit"),
        pytest.param("64kib", id="lower-case"),
        pytest.param("64 KiB", id="space-inside"),
        pytest.param("1.5MiB", id="fraction"),
        pytest.param("0x10", id="hexadecimal"),
        pytest.param("010", id="leading-zero"),
        pytest.param("9" * 5000, id="endless"),
    ],
)
def test_what_is_no_size_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="not a size"):
        read_size(raw)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        pytest.param(0, "0B", id="zero"),
        pytest.param(1000, "1000B", id="bytes"),
        pytest.param(65536, "64KiB", id="kibibytes"),
        pytest.param(1 << 20, "1MiB", id="mebibytes"),
        pytest.param(3 << 30, "3GiB", id="gibibytes"),
    ],
)
def test_a_size_is_written_in_the_largest_exact_unit(size: int, text: str) -> None:
    assert write_size(size) == text


@given(st.integers(min_value=0, max_value=1 << 50))
def test_what_is_written_of_a_size_reads_as_the_same(size: int) -> None:
    assert read_size(write_size(size)) == size


@given(st.text())
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    try:
        size = read_size(text)
    except ValueError:
        return
    assert size >= 0
