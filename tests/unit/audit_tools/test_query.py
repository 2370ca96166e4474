from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icr_proxy.audit.segments import list_segments
from icr_proxy.audit_tools.query import Wanted, read_records, read_status
from icr_proxy.audit_tools.time_range import read_moment
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
    assert list(Wanted(**wanted).among([RECORD])) == ([RECORD] if yes else [])


def test_a_read_is_no_change() -> None:
    assert not Wanted(writes=True).matches(RECORD | {"changes_state": False})


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

    assert Wanted(installation=spelled[wanted]).matches(record)
