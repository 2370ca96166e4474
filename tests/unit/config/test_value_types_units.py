from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.config.value_types import read_duration, read_size, write_duration, write_size


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
