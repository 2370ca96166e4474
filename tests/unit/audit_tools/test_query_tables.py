from __future__ import annotations

import pytest

from icr_proxy.audit_tools.query import as_csv, as_markdown, as_text

ROWS: list[dict[str, object]] = [{"a": 1, "b": "x"}, {"a": None, "b": "long\x1b"}]


def test_text_is_aligned_and_obeyed_by_no_terminal() -> None:
    assert as_text(ROWS) == "a  b\n-  -----\n1  x\n   long\ufffd\n"
    assert as_text([]) == ""


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_spreadsheet_executes_nothing(value: str) -> None:
    assert as_csv([{"a": value, "more": 1}], ["a"]).splitlines()[1].strip('"') == f"'{value}"


def test_numbers_in_csv_stay_numbers() -> None:
    assert as_csv([{"a": -1, "b": None}], ["a", "b"]) == "a,b\n-1,\n"


def test_markdown_is_escaped() -> None:
    assert as_markdown([{"a": "x|<b>_"}]) == "| a |\n| --- |\n| x\\|\\<b\\>\\_ |\n"
    assert as_markdown([]) == "None.\n"
