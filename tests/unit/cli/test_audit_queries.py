"""`icr-proxy audit query`, `report`, `export` and `suggest-policy`, as they are typed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from icr_proxy.cli.main import commands
from tests.support.audit_fixture import read_of, record_of, writer_in


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    writer = writer_in(tmp_path / "trail")
    records = [
        read_of(1),
        record_of(request_id="moved", target="/v1/retire?name=Me"),
        record_of(request_id="refused", code="policy-denied", attempts=0, status=403,
                  origin="proxy"),
        read_of(2),
    ]  # fmt: skip
    writer.append(records, sync=False)
    writer.close()
    return tmp_path / "trail"


def run(*words: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(commands, ["audit", *map(str, words)])


def ids(*words: str) -> list[str]:
    result = run("query", *words, "--json")
    return [json.loads(line)["request_id"] for line in result.output.splitlines()]


def test_requests_are_found(trail: Path) -> None:
    where = str(trail)

    assert ids(where) == ["read-1", "moved", "refused", "read-2"]
    assert ids(where, "--writes") == ["moved", "refused"]
    assert ids(where, "--limit", "1") == ["read-2"]
    assert ids(where, "--status", "4xx", "--method", "post") == ["refused"]
    assert ids(where, "--operation", "projects.*", "--limit", "0") == ["read-1", "read-2"]
    assert ids(where, "--since", "2026-09-22") == []
    assert ids(where, "--until", "2026-09-22", "--request-id", "moved") == ["moved"]


def test_a_table_shows_what_there_is_to_show(trail: Path) -> None:
    result = run("query", trail, "--request-id", "moved")

    assert result.exit_code == 0
    head, _, line = result.output.splitlines()
    assert head.split()[:4] == ["time", "seq", "status", "method"]
    assert "caller" not in head
    assert "/v1/retire" in line
    assert run("query", trail, "--intents").output.startswith("kind")


def test_to_find_nothing_is_told_by_the_exit_code(trail: Path) -> None:
    result = run("query", trail, "--request-id", "gone")

    assert (result.exit_code, result.output) == (1, "")


def test_sql_is_answered(trail: Path) -> None:
    sql = "SELECT operation, count(*) AS n FROM requests GROUP BY ALL ORDER BY n, operation"

    assert "v1.retire" in run("query", trail, "--sql", sql).output
    told = run("query", trail, "--sql", sql, "--json").output.splitlines()
    assert [json.loads(line)["n"] for line in told] == [2, 2]
    assert run("query", trail, "--sql", "SELECT 1 WHERE false").output == ""
    assert run("query", trail, "--sql", "selec").exit_code == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--since", "soon"), "--since 'soon' is no time; write 2026-10-01,"),
        (("--until", ""), "--until '' is no time; write 2026-10-01,"),
        (("--since", "today", "--until", "yesterday"), "is not before --until"),
        (("--status", "many"), "is no status"),
    ],
)
def test_what_cannot_be_understood_is_said(
    trail: Path, options: tuple[str, ...], words: str
) -> None:
    result = run("query", trail, *options)

    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


@pytest.mark.parametrize("command", ["query", "report", "export", "suggest-policy"])
@pytest.mark.parametrize("since", ["yesterday", "3 days ago", "2026-10-01", "2h30m", "now"])
def test_times_are_understood_as_people_write_them(trail: Path, command: str, since: str) -> None:
    assert run(command, trail, "--since", since).exit_code in (0, 1)


def test_a_directory_without_a_trail_is_said(tmp_path: Path) -> None:
    result = run("query", tmp_path)

    assert result.exit_code == 1
    assert "there is no audit trail" in result.output


def test_a_report_says_who_moved_what(trail: Path, tmp_path: Path) -> None:
    text = run("report", trail).output
    rows = list(csv.DictReader(io.StringIO(run("report", trail, "--format", "csv").output)))
    page = tmp_path / "r.html"

    assert "2026-09-21  inst-1        org-1         v1.retire  1     0         1" in text
    assert [(row["request_id"], row["fate"]) for row in rows] == [
        ("moved", "done"),
        ("refused", "not sent"),
    ]
    assert run("report", trail, "--format", "markdown").output.startswith("# Changes\n\n| day |")
    assert run("report", trail, "--format", "html", "--out", page).exit_code == 0
    assert "moved" in page.read_text()
    assert "read-1" not in page.read_text()
    assert run("report", trail, "--since", "2026-09-22").output == "No changes.\n"


def test_a_file_that_cannot_be_written_is_said(trail: Path) -> None:
    result = run("report", trail, "--out", "/proc/nowhere/r.txt")

    assert result.exit_code == 1
    assert "cannot be written" in result.output


def test_requests_are_exported_with_what_is_private_hidden(trail: Path, tmp_path: Path) -> None:
    har = json.loads(run("export", trail, "--base-url", "https://x/").output)
    hidden = run("export", trail, "--format", "csv").output
    shown = run("export", trail, "--format", "csv", "--no-redact").output
    target = tmp_path / "x.parquet"

    assert len(har["log"]["entries"]) == 4
    assert har["log"]["entries"][1]["request"]["url"] == "https://x/v1/retire?name=***"
    assert "10.0.0.7" not in hidden
    assert "10.0.0.7" in shown
    assert "name=Me" in shown
    assert run("export", trail, "--format", "parquet").exit_code == 2
    assert run("export", trail, "--format", "parquet", "--out", target).exit_code == 0
    assert target.read_bytes()[:4] == b"PAR1"


def test_a_policy_is_suggested(trail: Path) -> None:
    policy = yaml.safe_load(run("suggest-policy", trail).output)["policy"]

    assert policy["default"] == "deny"
    assert policy["rules"][0]["operations"] == ["projects.list", "v1.retire"]
    together = run("suggest-policy", trail, "--together", "--until", "2026-09-22")
    assert yaml.safe_load(together.output)["policy"]["rules"]
    assert run("suggest-policy", trail, "--since", "2026-09-22").exit_code == 1


def test_a_report_is_written_whole_and_through_no_link(trail: Path, tmp_path: Path) -> None:
    precious, out = tmp_path / "precious", tmp_path / "report.csv"
    precious.write_text("precious")
    out.symlink_to(precious)

    refused = run("report", trail, "--format", "csv", "--out", out)
    out.unlink()
    out.write_text("of last month")
    written = run("report", trail, "--format", "csv", "--out", out)

    assert (refused.exit_code, written.exit_code) == (1, 0)
    assert "is a symbolic link" in refused.output
    assert precious.read_text() == "precious"
    assert out.read_text().startswith("time,")
    assert sorted(each.name for each in tmp_path.glob("*report*")) == ["report.csv"]


def test_a_report_can_go_into_a_device(trail: Path) -> None:
    assert run("report", trail, "--format", "csv", "--out", "/dev/null").exit_code == 0
