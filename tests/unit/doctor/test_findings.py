"""What a person sees, and what a program reads."""

from __future__ import annotations

import json

from icr_proxy.doctor.findings import DoctorFinding, as_json, failed, lines, summary

GOOD = DoctorFinding("DNS", "ok", "api.example is 192.0.2.1")
BAD = DoctorFinding(
    "TCP", "fail", "no connection was taken by that port at all", "check the firewalls"
)


def test_a_finding_is_one_line_and_its_remedy_another() -> None:
    assert lines(BAD, width=None) == [
        "TCP             no connection was taken by that port at all",
        "                       → check the firewalls",
    ]


def test_several_problems_are_several_lines() -> None:
    found = lines(
        DoctorFinding("configuration", "fail", "app.id: is required\nlimts: no"), width=None
    )

    assert found == ["configuration   app.id: is required", " " * 23 + "limts: no"]


def test_a_narrow_terminal_gets_wrapped_lines() -> None:
    found = lines(BAD, width=60)

    assert found == [
        "TCP             no connection was taken by that port",
        "                       at all",
        "                       → check the firewalls",
    ]


def test_a_fingerprint_is_never_cut_in_two() -> None:
    long = "SHA256:" + "x-" * 40

    assert any(long in line for line in lines(DoctorFinding("key", "ok", f"RSA {long}"), width=40))


def test_an_empty_detail_is_still_a_line() -> None:
    assert lines(DoctorFinding("permissions", "ok", ""), width=80) == ["permissions     "]


def test_the_summary_counts() -> None:
    skipped = DoctorFinding("TLS", "skip", "needs TCP")
    warned = DoctorFinding("clock", "warn", "40 s behind")

    assert summary([GOOD, BAD, skipped, warned]) == "1 ok, 1 warning, 1 failure, 1 skipped"
    assert summary([GOOD, GOOD]) == "2 ok, 0 warnings, 0 failures"


def test_the_json_says_everything_once() -> None:
    document = json.loads(as_json([GOOD, BAD]))

    assert document["ok"] is False
    assert document["counts"] == {"ok": 1, "warn": 0, "fail": 1, "skip": 0}
    assert document["findings"][1] == {
        "name": "TCP",
        "state": "fail",
        "detail": "no connection was taken by that port at all",
        "remedy": "check the firewalls",
    }


def test_a_warning_is_no_failure() -> None:
    assert not failed([GOOD, DoctorFinding("clock", "warn", "40 s behind")])
