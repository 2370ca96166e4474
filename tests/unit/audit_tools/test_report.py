from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from icr_proxy.audit_tools.report import (
    CHANGE_COLUMNS,
    MEANINGS,
    MOST_BARS,
    RESULTS,
    classify_result,
    count_changes,
    find_changes,
    render_page,
)


def change(seq: int, **facts: Any) -> dict[str, Any]:
    return {
        "kind": "request",
        "seq": seq,
        "time": f"2026-11-{seq:02}T10:00:00.000+00:00",
        "request_id": f"r-{seq}",
        "installation": "inst-1",
        "operation": "v1.retire",
        "changes_state": True,
        "peer": "10.0.0.7",
        "attempts": 1,
        "origin": "upstream",
        "status": 200,
    } | facts


@pytest.mark.parametrize(
    ("facts", "result"),
    [
        pytest.param({}, "done", id="2xx"),
        pytest.param({"code": "upstream-broken"}, "done", id="2xx that broke off"),
        pytest.param({"status": 400}, "rejected", id="4xx"),
        pytest.param({"status": 403}, "rejected", id="a permission"),
        pytest.param({"status": 500}, "unknown", id="5xx"),
        pytest.param({"status": 499, "code": "caller-gone"}, "unknown", id="the caller left"),
        pytest.param({"attempts": 0, "status": 403}, "not sent", id="refused"),
        pytest.param(
            {"origin": "proxy", "status": 502, "code": "upstream-broken"}, "unknown", id="broken"
        ),
        pytest.param(
            {"origin": "proxy", "status": 504, "code": "upstream-timeout"}, "unknown", id="late"
        ),
        pytest.param(
            {"origin": "proxy", "status": 502, "code": "upstream-unreachable"},
            "not sent",
            id="no connection",
        ),
        pytest.param(
            {"origin": "proxy", "status": 499, "code": "caller-gone"}, "unknown", id="left early"
        ),
    ],
)
def test_it_is_told_what_became_of_a_change(facts: dict[str, Any], result: str) -> None:
    assert classify_result(change(1, **facts)) == result


def test_an_intent_without_an_outcome_is_of_unknown_fate() -> None:
    records = [
        change(1, kind="intent", request_id="a"),
        change(2, kind="intent", request_id="b"),
        change(3, request_id="a"),
        change(4, kind="intent", request_id="a"),  # ids are the caller's, who may repeat them
        change(5, request_id="read", changes_state=False),
        {"kind": "start", "seq": 6},
    ]

    found = find_changes(records)

    assert [(each.record["seq"], each.result) for each in found] == [
        (2, "unknown"),
        (3, "done"),
        (4, "unknown"),
    ]


def segment(seq: int, trail: str | None = "a") -> dict[str, Any]:
    return {"kind": "segment", "seq": seq} | ({} if trail is None else {"trail": trail})


def intent(seq: int, **facts: Any) -> dict[str, Any]:
    return change(seq, kind="intent", request_id="same") | facts


def outcome(seq: int, of: int | None, **facts: Any) -> dict[str, Any]:
    return change(seq, request_id="same", **({} if of is None else {"intent": of}), **facts)


def fates(*records: dict[str, Any], **options: Any) -> list[tuple[int, str]]:
    return [(each.record["seq"], each.result) for each in find_changes(records, **options)]


def test_an_outcome_is_that_of_the_intent_whose_number_it_has() -> None:
    """Callers choose ids: a refused request with the same ones must not hide an unknown write."""
    found = fates(
        segment(1), intent(2), segment(3), {"kind": "start", "seq": 4},
        outcome(5, None, attempts=0, status=403), intent(6), outcome(7, 6),
    )  # fmt: skip

    assert found == [(2, "unknown"), (5, "not sent"), (7, "done")]


def test_intents_of_several_trails_are_told_apart() -> None:
    found = fates(segment(1, "a"), intent(2), segment(1, "b"), intent(2), outcome(3, 2))

    assert found == [(2, "unknown"), (3, "done")]


def test_files_may_come_in_any_order() -> None:
    assert fates(segment(9), outcome(10, 2), segment(1), intent(2)) == [(10, "done")]


def test_an_intent_whose_outcome_is_of_another_period_is_not_unknown() -> None:
    records = (segment(1), intent(2), intent(3), outcome(4, 2))

    found = fates(*records, wanted=lambda record: record["time"] < "2026-11-04")

    assert found == [(3, "unknown")]


def test_in_files_of_earlier_versions_a_refused_request_hides_no_write() -> None:
    found = fates(
        segment(1, None), intent(2, token="t"), intent(3, path="/other", token="t"),
        outcome(4, None, attempts=0, status=403), outcome(5, None, path="/other"),
        segment(6, None), {"kind": "start", "seq": 7}, outcome(8, None),
    )  # fmt: skip

    assert found == [(2, "unknown"), (4, "not sent"), (5, "done"), (8, "done")]


def test_changes_are_summed_up_by_day_and_installation() -> None:
    changes = find_changes(
        [change(1), change(2), change(2, installation="inst-2"), change(2, status=400)]
    )

    sums = count_changes(changes)

    assert [(row["day"], row["installation"], row["done"], row["rejected"]) for row in sums] == [
        ("2026-11-01", "inst-1", 1, 0),
        ("2026-11-02", "inst-1", 1, 1),
        ("2026-11-02", "inst-2", 1, 0),
    ]


def test_a_row_names_the_caller_or_its_address() -> None:
    one, other = find_changes([change(1), change(2, caller="erp")])

    assert (one.row()["who"], other.row()["who"]) == ("10.0.0.7", "erp")
    assert tuple(one.row()) == CHANGE_COLUMNS


def test_every_fate_is_explained() -> None:
    assert tuple(MEANINGS) == RESULTS


def page(*records: dict[str, Any]) -> str:
    found = find_changes(records)
    return render_page(found, count_changes(found), title="T <1>", made="now")


def test_a_page_has_a_chart_for_each_installation_and_every_change() -> None:
    html = page(change(1), change(2, installation="inst-2", status=500))

    charts = re.findall(r"<svg.*?</svg>", html)
    assert len(charts) == 2
    for chart in charts:
        ET.fromstring(chart)  # is XML, so that every browser draws it
    assert "r-1" in html
    assert '<tr class="unknown">' in html
    assert "2026-11-01: 1 done" in html


def test_a_page_loads_and_runs_nothing() -> None:
    html = page(change(1, path="/<script>alert(1)</script>", caller='"><img src=x>'))

    assert "<script" not in html
    assert "<img" not in html
    assert "T &lt;1&gt;" in html
    assert "default-src 'none'" in html
    assert not re.findall(r'(?:src|href)="', html)
    assert html.count("http:") == html.count("http://www.w3.org/2000/svg")
    assert "https:" not in html


def test_a_long_time_is_shown_by_its_newest_days() -> None:
    records = [
        change(at, time=f"20{at // 336:02}-{at // 28 % 12 + 1:02}-{at % 28 + 1:02}T")
        for at in range(100)
    ]

    assert page(*records).count("<title>") - 1 == MOST_BARS


def test_a_page_about_nothing_says_so() -> None:
    assert page().count("None.") == 2
