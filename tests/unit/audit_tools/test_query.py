from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icr_proxy.audit.segments import list_segments
from icr_proxy.audit_tools.query import (
    RecordFilter,
    Tail,
    as_csv,
    as_markdown,
    as_text,
    format_record,
    read_records,
    read_status,
)
from icr_proxy.audit_tools.time_range import read_moment
from tests.support.app_fixture import Clock
from tests.support.audit_fixture import read_of, writer_in
from tests.support.audit_trails import write_trail

RECORD = {
    "kind": "request",
    "time": "2026-11-25T10:00:00.000+00:00",
    "installation": "inst-1",
    "operation": "v1.retire",
    "status": 404,
    "method": "POST",
    "caller": "erp",
    "peer": "10.0.0.7",
    "request_id": "r-1",
    "changes_state": True,
}


def test_records_are_read_oldest_first_and_what_is_none_is_passed_over(tmp_path: Path) -> None:
    head = write_trail(tmp_path)
    files = list_segments(tmp_path)
    files[1].write_bytes(b"garbage\n[]\n" + files[1].read_bytes())

    assert [record["seq"] for record in read_records(files)] == list(range(1, head.seq + 1))


@pytest.mark.parametrize(
    ("wanted", "yes"),
    [
        pytest.param({}, True, id="anything"),
        pytest.param({"kinds": frozenset({"intent"})}, False, id="another kind"),
        pytest.param({"since": "2026-11-25T10:00:00.000+00:00"}, True, id="since, inclusive"),
        pytest.param({"since": "2026-11-25T10:00:00.001+00:00"}, False, id="too old"),
        pytest.param({"until": "2026-11-25T10:00:00.000+00:00"}, False, id="until, exclusive"),
        pytest.param({"installation": "inst-1"}, True, id="installation"),
        pytest.param({"installation": "inst-2"}, False, id="another installation"),
        pytest.param({"operation": "v1.*"}, True, id="operation glob"),
        pytest.param({"operation": "v1"}, False, id="another operation"),
        pytest.param({"status": "404"}, True, id="status"),
        pytest.param({"status": "4xx"}, True, id="status class"),
        pytest.param({"status": "2xx"}, False, id="another status"),
        pytest.param({"method": "GET"}, False, id="another method"),
        pytest.param({"caller": "erp"}, True, id="caller"),
        pytest.param({"caller": "10.0.0.7"}, True, id="peer"),
        pytest.param({"caller": "crm"}, False, id="another caller"),
        pytest.param({"request_id": "r-2"}, False, id="another request"),
        pytest.param({"writes": True}, True, id="a change"),
    ],
)
def test_records_are_found_by_what_is_asked(wanted: dict[str, Any], yes: bool) -> None:  # noqa: FBT001
    assert list(RecordFilter(**wanted).select([RECORD])) == ([RECORD] if yes else [])


def test_a_read_is_no_change() -> None:
    assert not RecordFilter(writes=True).matches(RECORD | {"changes_state": False})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-25", "2026-11-25T00:00:00.000+00:00"),
        ("2026-11-25T10:30", "2026-11-25T10:30:00.000+00:00"),
        ("2026-11-25T10:30+02:00", "2026-11-25T08:30:00.000+00:00"),
        ("90m", "1969-12-31T22:30:00.000+00:00"),
        ("12h", "1969-12-31T12:00:00.000+00:00"),
        ("7d", "1969-12-25T00:00:00.000+00:00"),
    ],
)
def test_a_moment_is_read_as_people_write_it(text: str, moment: str) -> None:
    assert read_moment(text, now=0.0) == moment


def test_what_is_no_status_is_refused() -> None:
    with pytest.raises(ValueError, match="is no status"):
        read_status("abc")
    assert read_status("4xx") == "4xx"


@pytest.mark.parametrize("recorded", ["low", "high"])
@pytest.mark.parametrize("wanted", ["low", "high"])
def test_an_installation_is_found_however_its_id_is_spelled(recorded: str, wanted: str) -> None:
    spelled = {
        "low": "3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11",
        "high": "3B0C9F0E-7D4B-4B59-8F0E-2B1F0F6F8C11",
    }

    record = RECORD | {"installation": spelled[recorded]}

    assert RecordFilter(installation=spelled[wanted]).matches(record)


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


def test_a_tail_begins_with_the_newest_and_survives_the_change_of_files(tmp_path: Path) -> None:
    clock = Clock(1_790_000_000.0)
    writer = writer_in(tmp_path, now=clock, segment_age=60.0)
    for number in range(5):
        writer.append([read_of(number)], sync=False)
    tail = Tail(tmp_path)

    assert [record["request_id"] for record in tail.start(2)] == ["read-3", "read-4"]
    assert list(tail.read()) == []
    writer.append([read_of(5)], sync=False)
    clock.at += 60
    writer.append([read_of(6)], sync=False)
    kinds = [record.get("request_id", record["kind"]) for record in tail.read()]
    writer.close()

    assert kinds == ["read-5", "end", "segment", "read-6"]
    assert [record["kind"] for record in tail.read()] == ["end"]
    tail.close()


def test_of_many_files_only_the_newest_are_looked_at(tmp_path: Path) -> None:
    for number in range(4):
        writer = writer_in(tmp_path)
        writer.append([read_of(number)], sync=False)
        writer.close()
    tail = Tail(tmp_path)

    assert len(tail.start(100)) == 6
    tail.close()


def test_a_record_that_is_half_written_waits_for_its_rest(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    writer.append([read_of(1)], sync=False)
    writer.close()
    [path] = list_segments(tmp_path)
    data = path.read_bytes()
    path.write_bytes(b"garbage\n" + data[:-20])
    tail = Tail(tmp_path)
    assert len(tail.start(9)) == 2

    with path.open("ab") as file:
        file.write(data[-20:])

    assert [record["kind"] for record in tail.read()] == ["end"]
    tail.close()


@pytest.mark.parametrize(
    ("record", "colour"),
    [
        pytest.param({"kind": "request", "status": 200}, None, id="a read"),
        pytest.param({"kind": "request", "status": 200, "changes_state": True}, 32, id="a change"),
        pytest.param({"kind": "request", "status": 404}, 33, id="refused"),
        pytest.param({"kind": "request", "status": 502}, 31, id="failed"),
        pytest.param({"kind": "start", "version": "1"}, 2, id="of the proxy itself"),
    ],
)
def test_lines_are_coloured_by_what_they_mean(
    record: dict[str, object], colour: int | None
) -> None:
    line = format_record(record, colours=True)

    assert line.startswith(f"\x1b[{colour}m") == (colour is not None)
    assert "\x1b" not in format_record(record, colours=False)


def test_a_line_says_who_did_what_and_obeys_nothing() -> None:
    line = format_record(
        {
            "kind": "request", "seq": 7, "status": 403, "method": "POST", "path": "/v1/\x1b[2J",
            "query": "a=b", "code": "policy-denied", "caller": "erp", "request_id": "r-1",
        },
        colours=False,
    )  # fmt: skip

    assert "POST /v1/\ufffd[2J?a=b" in line
    assert "caller=erp id=r-1 code=policy-denied" in line
