from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

from icr_proxy.audit_tools.report import MOST_BARS, find_movements, render, sum_up
from tests.unit.audit_tools.test_report import change


def page(*records: dict[str, Any]) -> str:
    found = find_movements(records)
    return render(found, sum_up(found), title="T <1>", made="now")


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
