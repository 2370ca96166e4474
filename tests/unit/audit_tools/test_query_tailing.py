from __future__ import annotations

from pathlib import Path

import pytest

from icr_proxy.audit.segments import list_segments
from icr_proxy.audit_tools.query import Tail, show
from tests.support.app_fixture import Clock
from tests.support.audit_fixture import read_of, writer_in


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
    line = show(record, colours=True)

    assert line.startswith(f"\x1b[{colour}m") == (colour is not None)
    assert "\x1b" not in show(record, colours=False)


def test_a_line_says_who_did_what_and_obeys_nothing() -> None:
    line = show(
        {
            "kind": "request", "seq": 7, "status": 403, "method": "POST", "path": "/v1/\x1b[2J",
            "query": "a=b", "code": "policy-denied", "caller": "erp", "request_id": "r-1",
        },
        colours=False,
    )  # fmt: skip

    assert "POST /v1/\ufffd[2J?a=b" in line
    assert "caller=erp id=r-1 code=policy-denied" in line
