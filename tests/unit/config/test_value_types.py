from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icr_proxy.config import fields
from icr_proxy.config.value_types import (
    Choice,
    Count,
    Duration,
    Kind,
    ListOf,
    PathText,
    Size,
    Switch,
    Text,
    take,
)

WORD = Text(what="a word", pattern="[a-z]+", example="abc", parse=str.upper)
ALL = {name: kind for name, kind in vars(fields).items() if name.isupper() and name[0] != "_"}


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        pytest.param(WORD, "abc", "ABC", id="text-parsed"),
        pytest.param(Switch(), True, True, id="switch-boolean"),
        pytest.param(Switch(), "false", False, id="switch-false"),
        pytest.param(Switch(), "0", False, id="switch-zero"),
        pytest.param(Switch(), "No", False, id="switch-no"),
        pytest.param(Switch(), "OFF", False, id="switch-off"),
        pytest.param(Switch(), "True", True, id="switch-true"),
        pytest.param(Switch(), "1", True, id="switch-one"),
        pytest.param(Switch(), "yes", True, id="switch-yes"),
        pytest.param(Switch(), "on", True, id="switch-on"),
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
def test_a_value_is_read(kind: Kind, raw: object, value: object) -> None:
    assert take(kind, raw) == (value, [])
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
        pytest.param(Switch(), "maybe", '"maybe" is neither true nor false', id="switch"),
        pytest.param(Switch(), 1, "1 is neither true nor false", id="switch-number"),
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
    kind: Kind, raw: object, complaint: str
) -> None:
    assert take(kind, raw) == (None, [("", complaint)])


def test_every_wrong_item_of_a_list_is_told_with_its_place() -> None:
    _, complaints = take(ListOf(WORD), ["a", "5", None])

    assert complaints == [
        ("[1]", '"5" is not a word, as in abc'),
        ("[2]", "nothing is not a word"),
    ]


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        pytest.param(WORD, "ABC", "ABC", id="text"),
        pytest.param(Switch(), True, True, id="switch"),
        pytest.param(Choice(("a", "b")), "b", "b", id="choice"),
        pytest.param(Count(1, 9), 5, 5, id="count"),
        pytest.param(Duration(), 300.0, "5m", id="duration"),
        pytest.param(Size(), 1024, "1KiB", id="size"),
        pytest.param(PathText(), Path("/x"), "/x", id="path"),
        pytest.param(ListOf(Size()), (1024, 5), ["1KiB", "5B"], id="list"),
    ],
)
def test_a_value_is_written_as_in_a_file(kind: Kind, value: Any, written: object) -> None:
    assert kind.write(value) == written


@pytest.mark.parametrize("kind", ALL.values(), ids=list(ALL))
def test_the_example_of_a_kind_is_fine_and_its_schema_an_object(kind: Kind) -> None:
    example: Any = [kind.item.example] if isinstance(kind, ListOf) else kind.example

    assert take(kind, example)[1] == []
    assert isinstance(kind.schema(), dict)


def test_the_example_of_a_list_shows_an_item() -> None:
    assert ListOf(WORD).example == "[abc]"


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("kind", [fields.APP_ID, fields.BASE_URL, fields.FILE, fields.HOSTS])
def test_quotes_around_a_value_are_named_as_the_mistake(kind: Kind, quote: str) -> None:
    """`docker --env-file` keeps them, and `app.id` would take them."""
    _, ((_, complaint),) = take(kind, f"{quote}https://a{quote}")

    assert "is in quotes" in complaint
