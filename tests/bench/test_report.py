"""What the benchmarks say is what they measured; no time is taken here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench import tell
from tests.bench.goals import GOALS, Goal, goal_table
from tests.bench.measures import (
    ADDED_P50,
    CPU_PLAIN,
    CPU_TLS,
    DIRECT,
    IDLE,
    NOTHING,
    P50,
    STREAM_DOWN,
    TIMES,
    VARIED_PLAIN,
    Measure,
)
from tests.bench.plot import plot, ticks
from tests.bench.report import Report, Summary, markdown, pooled, read, with_added, written
from tests.bench.run import SUITES, measured
from tests.bench.suites import Bench

FACTS = {
    "date": "2026-11-25", "icr-proxy": "0.1.0", "revision": "abc1234", "python": "3.11.7",
    "cores": 2, "processor": "Some CPU <64 & more>", "envoy": "1.40.0", "rounds": 3, "seconds": 1,
}  # fmt: skip
NUMBERS = {
    CPU_PLAIN: {"icr-proxy": [60.0, 50.0, 55.0], "envoy": [50.0], "aiohttp": [110.0]},
    VARIED_PLAIN: {"icr-proxy": [80.0], "envoy": [50.0]},
    P50: {"icr-proxy": [0.5], "envoy": [0.4], DIRECT: [0.1, 0.2, 0.3]},
    STREAM_DOWN: {"icr-proxy": [1.0], "go": [0.8], "envoy": [0.5]},
    IDLE: {"icr-proxy": [52.0], "envoy": [64.0]},
}
SVG = "{http://www.w3.org/2000/svg}"


def report(numbers: dict[Measure, dict[str, list[float]]] | None = None, **facts: object) -> Report:
    return Report({**FACTS, **facts}, NUMBERS if numbers is None else numbers)


def test_a_report_is_read_as_it_was_written() -> None:
    assert read(written(report())) == report()


def test_a_summary_is_median_lowest_and_highest() -> None:
    assert report().summary(CPU_PLAIN, "icr-proxy") == Summary(55.0, 50.0, 60.0)


@pytest.mark.parametrize(
    ("contender", "beside", "ratio"),
    [
        pytest.param("icr-proxy", "envoy", 1.1, id="of the medians"),
        pytest.param("icr-proxy", "aiohttp", 0.5, id="less than one"),
        pytest.param("icr-proxy", "nginx", None, id="the yardstick was not there"),
        pytest.param("go", "envoy", None, id="the contender was not there"),
    ],
)
def test_a_ratio_is_of_what_was_measured(contender: str, beside: str, ratio: float | None) -> None:
    assert report().ratio(CPU_PLAIN, contender, beside) == (
        None if ratio is None else pytest.approx(ratio)
    )


def test_nothing_is_compared_with_what_is_not_above_zero() -> None:
    """An added latency can be, where the machine was not quiet."""
    assert report({P50: {"a": [0.5], "b": [-0.1]}}).ratio(P50, "a", "b") is None


def test_the_latency_added_is_the_contender_s_less_that_without_a_proxy() -> None:
    added = with_added(report()).numbers[ADDED_P50]

    assert set(added) == {"icr-proxy", "envoy"}
    assert added["icr-proxy"] == pytest.approx([0.3])
    assert added["envoy"] == pytest.approx([0.2])


def test_several_reports_make_one_with_all_their_rounds() -> None:
    both = pooled(
        [report(), report({CPU_PLAIN: {"envoy": [70.0]}, CPU_TLS: {"envoy": [1.0]}}, revision="x")]
    )

    assert both.numbers[CPU_PLAIN]["envoy"] == [50.0, 70.0]
    assert both.numbers[CPU_TLS] == {"envoy": [1.0]}
    assert both.facts["revision"] == "abc1234 and x"
    assert both.facts["rounds"] == 3


def test_the_reports_that_were_pooled_stay_as_they_are() -> None:
    first = report({CPU_PLAIN: {"envoy": [1.0]}})

    pooled([first, first])

    assert first.numbers[CPU_PLAIN]["envoy"] == [1.0]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("| icr-proxy | 55.00 | 50.00 to 60.00 | 1.10 | 0.50 |", id="Envoy, aiohttp"),
        pytest.param("| icr-proxy | 1.00 | 1.00 to 1.00 | 2.00 | 1.25 |", id="Envoy, Go"),
        pytest.param("| icr-proxy | 0.30 | 0.30 to 0.30 | 1.50 |", id="added latency"),
    ],
)
def test_the_report_has_the_ratios_that_the_goals_are_about(line: str) -> None:
    assert line in markdown(report()).splitlines()


def test_beside_another_revision_the_other_revision_is_the_yardstick() -> None:
    text = markdown(report({CPU_PLAIN: {"icr-proxy": [9.0], "base": [10.0]}}))

    assert "| | median | lowest to highest | / base |\n" in text
    assert "| icr-proxy | 9.00 | 9.00 to 9.00 | 0.90 |" in text


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        pytest.param(None, "not measured", id="nothing"),
        pytest.param(1.0, "yes", id="just so"),
        pytest.param(1.004, "yes", id="as it is told"),
        pytest.param(1.01, "acceptable (up to 1.25)", id="good enough"),
        pytest.param(1.25, "acceptable (up to 1.25)", id="just good enough"),
        pytest.param(1.26, "**no**", id="worse"),
    ],
)
def test_a_goal_is_reached_good_enough_or_missed(number: float | None, verdict: str) -> None:
    assert Goal(what="", measure=IDLE, most=1.0, acceptable=1.25).verdict(number) == verdict


def test_a_goal_without_an_indulgence_is_missed_by_little() -> None:
    assert Goal(what="", measure=IDLE, most=1.0).verdict(1.01) == "**no**"


def test_memory_is_judged_in_megabytes_of_a_million() -> None:
    """52.5 MiB are 55.05 MB: too much."""
    table = goal_table(report({IDLE: {"icr-proxy": [52.5]}}))

    assert "| memory when idle | ≤ 55 MB | 55.1 MB | **no** |" in table


def test_a_goal_that_was_not_measured_is_not_counted_as_reached() -> None:
    table = goal_table(with_added(report()))

    assert "2 of 6 goals that were measured are reached, 1 more is acceptable." in table
    assert table.count("not measured") == len(GOALS) - 6


def test_every_goal_is_measured_by_a_suite() -> None:
    assert {goal.measure[0] for goal in GOALS} <= set(SUITES)


def slower(shown: Report) -> list[str]:
    text = tell.section(shown)
    between = text[text.index("### Where it is slower") : text.index("### All numbers")]
    return between.strip().splitlines()[2:]


def test_what_is_slower_is_said_and_beside_whom() -> None:
    assert slower(report()) == [
        f"* CPU per request, plain upstream: 1.10 {TIMES} Envoy",
        f"* CPU per request, every head different, plain upstream: 1.60 {TIMES} Envoy",
        f"* latency added at 500/s, median: 1.50 {TIMES} Envoy",
        f"* CPU per GiB down: 2.00 {TIMES} Envoy, 1.25 {TIMES} Go",
    ]


def test_a_few_hundredths_are_not_called_slower() -> None:
    assert slower(report({IDLE: {"icr-proxy": [1.04], "envoy": [1.0]}})) == ["Nowhere."]


def test_all_numbers_are_told_with_the_spread_of_ours() -> None:
    header, row = (
        next(line for line in tell.section(report()).splitlines() if word in line)
        for word in ("**icr-proxy**", "55.0 µs")
    )

    assert header == "| | **icr-proxy** | Envoy | Go | plain aiohttp | / Envoy |"
    assert row == (
        "| CPU per request, plain upstream | **55.0 µs** (50.0 to 60.0) "
        f"| 50.0 | {NOTHING} | 110 | 1.10 |"
    )


def test_only_what_stands_between_the_markers_is_written_anew() -> None:
    text = "a <!-- bench:begin -->old<!-- bench:end --> b"

    assert tell.filled(text, "new") == "a <!-- bench:begin -->new<!-- bench:end --> b"


@pytest.mark.parametrize("text", ["", "<!-- bench:begin -->", "<!-- bench:end -->"])
def test_a_document_without_markers_is_not_touched(text: str) -> None:
    with pytest.raises(ValueError, match="are missing"):
        tell.filled(text, "new")


def drawn(shown: Report) -> ET.Element:
    return ET.fromstring(plot(shown))


def test_the_plot_is_well_formed_whatever_the_machine_is_called() -> None:
    texts = [each.text or "" for each in drawn(report()).iter(f"{SVG}text")]

    assert any("Some CPU <64 & more>" in text for text in texts)


def test_the_plot_names_contenders_and_numbers_as_text() -> None:
    texts = {each.text for each in drawn(report()).iter(f"{SVG}text")}

    assert {"icr-proxy", "Envoy", "plain aiohttp", "no proxy", "55.0", "110"} <= texts


def test_a_bar_is_as_long_as_its_number() -> None:
    bars = [bar for bar in drawn(report()).iter(f"{SVG}rect") if bar.get("height") == "11"]
    ours, envoys, *_ = [float(bar.get("width", 0)) for bar in bars if bar.get("x") == "92"]

    assert ours / envoys == pytest.approx(1.1, abs=0.01)


def test_the_plot_has_nothing_outside_its_frame() -> None:
    root = drawn(report())
    height = float(root.get("height", 0))
    moves = [each.get("transform", "") for each in root.iter(f"{SVG}g")]
    tops = [float(re.findall(r"[\d.]+", move)[1]) for move in moves]

    assert 0 < min(tops) <= max(tops) < height - 80


def test_the_plot_needs_nothing_from_elsewhere() -> None:
    text = plot(report()).replace("http://www.w3.org/2000/svg", "")

    assert not re.search(r"https?:|url\(|@import|href|<script|<image", text)


def test_the_plot_has_colours_for_the_dark() -> None:
    light, _, dark = plot(report()).partition("prefers-color-scheme: dark")

    for kind in ("paper", "ink", "soft", "grid", "ours", "first", "second", "spread"):
        assert f".{kind}" in light
        assert f".{kind}" in dark


def test_a_panel_without_numbers_is_not_drawn() -> None:
    assert "Memory when idle" not in plot(report({CPU_PLAIN: {"icr-proxy": [1.0]}}))


def test_the_plot_is_told_in_words_to_those_who_do_not_see_it() -> None:
    described = drawn(report()).find(f"{SVG}desc")

    assert described is not None
    assert "Memory when idle, MiB, resident: icr-proxy 52.0, Envoy 64.0" in (described.text or "")


@pytest.mark.parametrize(
    ("highest", "expected"),
    [
        pytest.param(156, [0, 50, 100, 150], id="hundreds"),
        pytest.param(100, [0, 25, 50, 75, 100], id="to the end"),
        pytest.param(0.33, [0, 0.1, 0.2, 0.3], id="parts"),
        pytest.param(9, [0, 2.5, 5, 7.5], id="quarters"),
        pytest.param(0.0004, [0, 0.0001, 0.0002, 0.0003, 0.0004], id="next to nothing"),
    ],
)
def test_a_scale_has_round_numbers(highest: float, expected: list[float]) -> None:
    assert ticks(highest) == expected


def test_a_suite_that_fails_takes_nothing_with_it_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: Bench) -> None:
        bench.note(IDLE, "envoy", 1.0)
        raise RuntimeError("no request was answered")

    monkeypatch.setitem(SUITES, "broken", broken)
    bench = Bench(tools=tmp_path, work=tmp_path, contenders=(), rounds=1, seconds=1)

    assert not measured(bench, "broken")
    assert bench.numbers == {IDLE: {"envoy": [1.0]}}


DOCUMENTS: dict[Path, Callable[[Report, str], str]] = {
    tell.PAGE: lambda kept, text: tell.filled(text, f"\n{tell.section(kept)}"),
    tell.README: lambda kept, text: tell.filled(text, tell.sentence(kept)),
    tell.PLOT: lambda kept, _: plot(kept),
}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_documents_tell_the_numbers_that_are_kept(file: Path) -> None:
    text = file.read_text()

    assert DOCUMENTS[file](read(tell.KEPT.read_text()), text) == text, "run `make docs`"
