"""`icr-proxy audit verify` and `tail`, as they are typed."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.auditchain import Head
from proxy.auditfiles import list_segments
from proxy.auditthread import Landed, write_anchor
from proxy.cli import commands
from tests.auditor.trails import write_trail
from tests.auditscenes import KEY, read_of, writer_in

GUARD_SECONDS = 20


@pytest.fixture
def trail(tmp_path: Path) -> tuple[Path, Head]:
    directory = tmp_path / "trail"
    head = write_trail(directory)
    (tmp_path / "key").write_text(KEY.reveal())
    return directory, head


def run(*words: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(commands, ["audit", *map(str, words)])


def test_a_trail_that_nobody_touched_is_clean(trail: tuple[Path, Head], tmp_path: Path) -> None:
    directory, head = trail
    write_anchor(tmp_path / "anchor", Landed(head=head, segment=None), now=0.0)

    result = run(
        "verify", directory, "--key-file", tmp_path / "key", "--anchor-file", tmp_path / "anchor",
        "--head", f"{head.seq}:{head.hash[:12].upper()}",
        "--head-metric", f"{head.seq}:{float(head.number)}",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert result.output.count(f"Compared with record {head.seq}") == 3
    assert "CLEAN" in result.output


def test_tampering_is_told_with_its_place(trail: tuple[Path, Head], tmp_path: Path) -> None:
    directory, _ = trail
    path = list_segments(directory)[1]
    path.write_bytes(path.read_bytes().replace(b"/projects", b"/Projects", 1))

    result = run("verify", directory, "--key-file", tmp_path / "key")
    told = run("verify", directory, "--key-file", tmp_path / "key", "--json")

    assert result.exit_code == told.exit_code == 2
    [finding] = json.loads(told.output)["findings"]
    assert (finding["kind"], finding["file"]) == ("changed", path.name)
    assert f"changed   {path.name}:{finding['line']}" in result.output


def test_a_cut_that_only_a_witness_knows_of_is_told(
    trail: tuple[Path, Head], tmp_path: Path
) -> None:
    directory, head = trail
    list_segments(directory)[-1].unlink()
    words = ("verify", directory, "--key-file", tmp_path / "key")

    assert run(*words).exit_code == 0
    result = run(*words, "--head", f"{head.seq}:{head.hash}")
    assert result.exit_code == 2
    assert "cut " in result.output


def test_without_the_key_it_is_not_said_to_be_clean(trail: tuple[Path, Head]) -> None:
    directory, _ = trail

    assert run("verify", directory).exit_code == 1
    assert run("verify", directory, "--chain-only").exit_code == 0


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    result = run("verify", tmp_path)

    assert result.exit_code == 1
    assert "NOT CHECKED: there is no audit trail in" in result.output


@pytest.mark.parametrize(
    ("option", "head"),
    [
        ("--head", "7"),
        ("--head", "7:abc"),
        ("--head", "0:aaaaaaaaaaaa"),
        ("--head", "7:wwwwwwwwwwww"),
        ("--head-metric", "7:x"),
    ],
)
def test_what_is_no_head_is_refused(trail: tuple[Path, Head], option: str, head: str) -> None:
    result = run("verify", trail[0], option, head)

    assert result.exit_code == 2
    assert "is no head" in result.output


def test_files_elsewhere_may_be_left_out(trail: tuple[Path, Head], tmp_path: Path) -> None:
    directory, _ = trail
    list_segments(directory)[0].unlink()
    words = ("verify", directory, "--key-file", tmp_path / "key")

    assert run(*words).exit_code == 2
    assert run(*words, "--partial").exit_code == 0


def test_on_a_terminal_a_bar_shows_how_far_it_is(trail: tuple[Path, Head], tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = ["audit", "verify", str(trail[0]), "--key-file", str(tmp_path / "key")]

    subprocess.run(
        [sys.executable, "-m", "proxy", *words],
        stderr=theirs, stdout=subprocess.DEVNULL, check=True, timeout=GUARD_SECONDS,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 4096)
    os.close(ours)

    assert b"Verifying" in shown
    assert b"100%" in shown


def test_the_newest_records_are_shown(trail: tuple[Path, Head]) -> None:
    result = run("tail", trail[0], "-n", "3", "--no-follow")
    told = run("tail", trail[0], "-n", "3", "--no-follow", "--json")

    assert len(result.output.splitlines()) == 3
    assert "read-5" in result.output
    assert [json.loads(line)["seq"] for line in told.output.splitlines()] == [22, 23, 24]


async def test_records_are_shown_as_they_come(trail: tuple[Path, Head]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "audit", "tail", str(trail[0]), "-n", "1", "--json",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(GUARD_SECONDS):
        first = json.loads(await process.stdout.readline())
        writer = writer_in(trail[0])
        writer.append([read_of(99)], sync=False)
        lines = [json.loads(await process.stdout.readline()) for _ in range(2)]
        writer.close()
    process.kill()
    await process.wait()

    assert first["seq"] == 24
    assert [line["kind"] for line in lines] == ["segment", "request"]
