import io
import json
import logging
import os
import pty
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal

import pytest

from icr_proxy.config.models import LogsConfig
from icr_proxy.observability.log import (
    LineBuffer,
    Log,
    StdlibLogHandler,
    Threshold,
    build_log,
    where,
)
from icr_proxy.redaction import Secret
from tests.support.fakes import Heard

NOW = 1_700_000_000.125
SECRET = "crs_planted"


def log_to(
    stream: BinaryIO,
    *,
    form: Literal["auto", "json", "console"] = "json",
    level: str = "debug",
) -> Log:
    return build_log(
        LogsConfig(format=form),
        lines=LineBuffer(stream),
        threshold=Threshold(level),
        now=lambda: NOW,
    )


def as_the_library_writes(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def lines_of(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# -- JSON -----------------------------------------------------------------------------------------


def test_a_line_is_json_with_its_fields_in_reading_order() -> None:
    stream = io.BytesIO()

    log_to(stream).info("token.minted", installation="in-1", generation=3, organization=None)

    assert stream.getvalue() == (
        b'{"ts":"2023-11-14T22:13:20.125+00:00","level":"info","event":"token.minted",'
        b'"installation":"in-1","generation":3,"organization":null}\n'
    )


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param((0.0,), id="the first of all seconds"),
        pytest.param((NOW, NOW + 0.0009, NOW + 0.001, NOW + 0.8749), id="within a second"),
        pytest.param((NOW, NOW + 1, NOW), id="back and forth"),
        pytest.param((NOW + 0.8749996, NOW + 0.8749999), id="as good as the next second"),
        pytest.param((1_700_000_000.123, 1_700_000_000.999), id="none that binary fractions hit"),
    ],
)
def test_every_moment_is_written_as_if_it_were_the_only_one(seconds: tuple[float, ...]) -> None:
    stream, times = io.BytesIO(), iter(seconds)
    log = build_log(
        LogsConfig(format="json"),
        lines=LineBuffer(stream),
        threshold=Threshold("info"),
        now=lambda: next(times),
    )

    for _ in seconds:
        log.info("something.happened")

    assert [line["ts"] for line in lines_of(stream)] == [
        as_the_library_writes(each) for each in seconds
    ]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_every_level_is_named_as_configured(level: str) -> None:
    stream = io.BytesIO()

    getattr(log_to(stream), level)("something.happened")

    assert [line["level"] for line in lines_of(stream)] == [level]


class Odd:
    """Something no encoder knows."""

    def __str__(self) -> str:
        return "odd"


UNUSUAL: dict[str, object] = {
    "bytes": b"\xff\x00",
    "surrogate (a byte that is not UTF-8)": "/\udcff",
    "surrogate in a list": ["/\ud800"],
    "surrogate as a name": {"\udcff": 1},
    "line feed": "one\ntwo",
    "NUL": "\0",
    "beyond the first plane": "🌲",
    "not a number": float("nan"),
    "infinity": float("inf"),
    "a large number": 2**200,
    "a set": {1},
    "an object": Odd(),
    "a class": Odd,
    "an exception": ValueError("x"),
    "numbers as names": {1: 2},
    "odd names": {(1, 2): 3},
    "nothing": None,
}


@pytest.mark.parametrize("value", UNUSUAL.values(), ids=UNUSUAL)
@pytest.mark.parametrize("form", ["json", "console"])
def test_no_value_breaks_the_log(form: Literal["json", "console"], value: object) -> None:
    stream = io.BytesIO()
    log = log_to(stream, form=form)

    log.info("before", value=value)
    log.info("after")

    text = stream.getvalue().decode("utf-8")
    assert "before" in text
    assert text.splitlines()[-1].count("after") == 1


@pytest.mark.parametrize("value", UNUSUAL.values(), ids=UNUSUAL)
def test_any_value_is_one_line_of_json(value: object) -> None:
    stream = io.BytesIO()

    log_to(stream).info("something.happened", value=value)

    (line,) = lines_of(stream)
    assert list(line) == ["ts", "level", "event", "value"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_does_not_show_itself(form: Literal["json", "console"]) -> None:
    stream = io.BytesIO()

    log_to(stream, form=form).info("mistake", secret=Secret(SECRET), held=[Secret(SECRET)])

    assert b"planted" not in stream.getvalue()
    assert b"Secret(***)" in stream.getvalue()


# -- the stream -----------------------------------------------------------------------------------


class FullDisk(io.BytesIO):
    """A stream that cannot be written for a while."""

    full = True

    def write(self, data: Any) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    """A full disk, a collector that went away: requests go on."""
    stream = FullDisk()
    log = log_to(stream)

    log.info("lost")
    stream.full = False
    log.info("written")

    assert [line["event"] for line in lines_of(stream)] == ["written"]


def test_a_closed_stream_stops_nothing() -> None:
    stream = io.BytesIO()
    log = log_to(stream)
    stream.close()

    log.info("lost")

    assert stream.closed


def test_a_line_is_on_its_way_when_the_call_returns() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as source, open(writing, "wb") as stream:  # noqa: PTH123
        log_to(stream).info("something.happened")

        assert json.loads(source.read(4096))["event"] == "something.happened"


def test_a_moment_that_rounds_up_to_the_next_second_is_written_as_that() -> None:
    stream = io.BytesIO()
    log = build_log(
        LogsConfig(format="json"),
        lines=LineBuffer(stream),
        threshold=Threshold("info"),
        now=lambda: 1_700_000_000.9999999,
    )

    log.info("something.happened")

    assert lines_of(stream)[0]["ts"] == "2023-11-14T22:13:21.000+00:00"


# -- who reads it ---------------------------------------------------------------------------------


@contextmanager
def terminal() -> Iterator[tuple[BinaryIO, int]]:
    """Open a terminal; give our end and the end where a person sits."""
    person, ours = pty.openpty()
    with open(ours, "wb", buffering=0) as stream:  # noqa: PTH123
        try:
            yield stream, person
        finally:
            os.close(person)


@pytest.mark.parametrize(
    ("form", "is_json", "is_coloured"),
    [("auto", False, True), ("console", False, True), ("json", True, False)],
)
def test_on_a_terminal(
    form: Literal["auto", "json", "console"],
    is_json: bool,  # noqa: FBT001
    is_coloured: bool,  # noqa: FBT001
) -> None:
    with terminal() as (stream, person):
        log_to(stream, form=form).info("proxy.ready", installation="in-1")
        text = os.read(person, 4096).decode()

    assert text.startswith("{") is is_json
    assert ("\x1b[" in text) is is_coloured
    assert "proxy.ready" in text


@pytest.mark.parametrize(("form", "is_json"), [("auto", True), ("console", False), ("json", True)])
def test_into_a_file_there_are_no_colours(
    form: Literal["auto", "json", "console"],
    is_json: bool,  # noqa: FBT001
) -> None:
    stream = io.BytesIO()

    log_to(stream, form=form).info("proxy.ready", installation="in-1")

    text = stream.getvalue().decode()
    assert text.startswith("{") is is_json
    assert "\x1b" not in text


def test_a_person_reads_one_line_with_its_fields_in_order() -> None:
    stream = io.BytesIO()

    log_to(stream, form="console").warning("request.done", zebra=1, apple="x", path="/projects")

    text = stream.getvalue().decode()
    assert re.search(r"warning.*request\.done.*zebra=1 apple=x path=/projects\n$", text)
    assert text.count("\n") == 1


@pytest.mark.parametrize("value", ["one\ntwo", "\x1b[2J", "\x07"], ids=["line", "escape", "bell"])
def test_a_terminal_obeys_nothing_that_is_logged(value: str) -> None:
    stream = io.BytesIO()

    log_to(stream, form="console").info("request.done", path=value)

    line = stream.getvalue().decode().removesuffix("\n")
    assert line.isprintable()


# -- the threshold --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "passed"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_is_below_the_level_is_dropped(level: str, passed: list[str]) -> None:
    stream = io.BytesIO()
    log = log_to(stream, level=level)

    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")

    assert [line["level"] for line in lines_of(stream)] == passed


def test_the_level_changes_while_running() -> None:
    stream = io.BytesIO()
    threshold = Threshold("info")
    log = build_log(
        LogsConfig(format="json"), lines=LineBuffer(stream), threshold=threshold, now=lambda: NOW
    )

    log.debug("one")
    threshold.level = "debug"
    log.debug("two")
    threshold.level = "error"
    log.info("three")

    assert [line["event"] for line in lines_of(stream)] == ["two"]


# -- unexpected exceptions ------------------------------------------------------------------------


def caught(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as exc:
        return exc


def deep(levels: int) -> None:
    if levels == 0:
        raise ValueError(SECRET)
    deep(levels - 1)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        OSError(2, SECRET, f"/{SECRET}"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_unexpected_error_is_described_without_its_text(error: Exception) -> None:
    error.__cause__ = ValueError(SECRET)
    error.add_note(SECRET)

    found = where(caught(error))

    assert found["error"] == type(error).__name__
    assert "planted" not in str(found)


def test_an_unexpected_error_is_located() -> None:
    found = where(caught(ValueError("x")))

    lines = found["where"]
    assert isinstance(lines, list)
    assert re.fullmatch(r"caught \(test_log\.py:\d+\)", lines[-1])


def test_an_error_never_raised_has_no_location() -> None:
    assert where(ValueError("x")) == {"error": "ValueError", "where": []}


def test_of_a_deep_error_the_innermost_lines_are_told() -> None:
    with pytest.raises(ValueError, match=SECRET) as info:
        deep(200)

    lines = where(info.value)["where"]

    assert isinstance(lines, list)
    assert len(lines) <= 30
    assert lines[-1].startswith("deep (test_log.py:")


# -- what libraries say ---------------------------------------------------------------------------


def library(heard: Heard) -> logging.Logger:
    logger = logging.Logger("aiohttp.server")  # noqa: LOG001 - not in the global tree
    logger.addHandler(StdlibLogHandler(heard))
    return logger


def test_a_library_is_quoted_without_what_it_filled_in() -> None:
    heard = Heard()

    library(heard).warning("Refused %s from %r", SECRET, {"token": SECRET})

    assert heard.lines == [
        (
            "error",
            "library.error",
            {"logger": "aiohttp.server", "template": "Refused %s from %r"},
        )
    ]


@pytest.mark.parametrize(
    "message", [f"Refused {SECRET}", SECRET, ValueError(SECRET)], ids=["composed", "bare", "object"]
)
def test_a_message_that_was_composed_before_is_not_passed_on(message: object) -> None:
    heard = Heard()

    library(heard).error(message)

    assert "planted" not in str(heard.lines)
    assert len(heard.lines) == 1


def test_a_librarys_exception_is_located_without_its_text() -> None:
    heard = Heard()

    library(heard).error("Error handling request", exc_info=caught(ValueError(SECRET)))

    ((_, _, fields),) = heard.lines
    assert fields["error"] == "ValueError"
    assert "caught (test_log.py:" in str(fields["where"])
    assert "planted" not in str(fields)


def test_a_library_that_mentions_no_exception_is_fine() -> None:
    heard = Heard()

    library(heard).error("Oh", exc_info=True)

    assert len(heard.lines) == 1


def test_a_library_that_fills_in_too_little_breaks_nothing() -> None:
    heard = Heard()

    library(heard).error("%s %s", SECRET)

    assert "planted" not in str(heard.lines)


def test_chatter_of_libraries_is_not_passed_on() -> None:
    heard = Heard()

    library(heard).info("Starting")

    assert heard.lines == []
