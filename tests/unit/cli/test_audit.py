"""`icr-proxy audit verify` and `tail`, as they are typed."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from icr_proxy.audit.anchor import AnchorFile
from icr_proxy.audit.chain import ChainHead, read_audit_key
from icr_proxy.audit.segments import list_segments
from icr_proxy.audit.writer import TrailWriter, check_trail
from icr_proxy.audit.writer_thread import TrailThread
from icr_proxy.cli.main import commands
from icr_proxy.config.models import AuditConfig
from icr_proxy.errors import StartError
from tests.support.audit_fixture import KEY, read_of, writer_in
from tests.support.audit_trails import write_trail
from tests.unit.audit.test_writer import files_no_longer_than

GUARD_SECONDS = 20


@pytest.fixture
def trail(tmp_path: Path) -> tuple[Path, ChainHead]:
    directory = tmp_path / "trail"
    head = write_trail(directory)
    (tmp_path / "key").write_text(KEY.reveal())
    return directory, head


def run(*words: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(commands, ["audit", *map(str, words)])


def test_a_trail_that_nobody_touched_is_clean(
    trail: tuple[Path, ChainHead], tmp_path: Path
) -> None:
    directory, head = trail
    AnchorFile(tmp_path / "anchor").publish(head, file=None, trail=None, now=0.0)

    result = run(
        "verify", directory, "--key-file", tmp_path / "key", "--anchor-file", tmp_path / "anchor",
        "--head", f"{head.seq}:{head.hash[:12].upper()}",
        "--head-metric", f"{head.seq}:{float(head.number)}",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert result.output.count(f"Compared with record {head.seq}") == 3
    assert "CLEAN" in result.output


def test_tampering_is_told_with_its_place(trail: tuple[Path, ChainHead], tmp_path: Path) -> None:
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
    trail: tuple[Path, ChainHead], tmp_path: Path
) -> None:
    directory, head = trail
    list_segments(directory)[-1].unlink()
    words = ("verify", directory, "--key-file", tmp_path / "key")

    assert run(*words).exit_code == 0
    result = run(*words, "--head", f"{head.seq}:{head.hash}")
    assert result.exit_code == 2
    assert "cut " in result.output


def test_without_the_key_it_is_not_said_to_be_clean(trail: tuple[Path, ChainHead]) -> None:
    directory, _ = trail

    assert run("verify", directory).exit_code == 1
    assert run("verify", directory, "--chain-only").exit_code == 0


def test_a_wrong_key_is_not_checked(trail: tuple[Path, ChainHead], tmp_path: Path) -> None:
    (tmp_path / "other").write_text("o" * 64)
    words = ("verify", trail[0], "--key-file", tmp_path / "other")

    result = run(*words)
    told = json.loads(run(*words, "--json").output)

    assert result.exit_code == 1
    assert "NOT CHECKED" in result.output
    assert "forged" not in result.output
    assert (told["result"], told["findings"]) == ("not-checked", [])
    both = run(*words, "--key-file", tmp_path / "key")
    assert both.exit_code == 0, both.output


def test_a_key_that_differs_in_its_line_end_is_the_same(
    trail: tuple[Path, ChainHead], tmp_path: Path
) -> None:
    for end in (b"\n", b"\r\n"):
        (tmp_path / "key").write_bytes(b"\xef\xbb\xbf" + KEY.reveal().encode() + end)

        assert run("verify", trail[0], "--key-file", tmp_path / "key").exit_code == 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"k" * 31, "less than 32 characters", id="short"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 64, "PEM", id="PEM"),
        pytest.param(b"LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t" * 2, "PEM", id="PEM in base64"),
        pytest.param(b'{"seq":1,"prev":"' + b"0" * 64, "JSON", id="the trail itself"),
        pytest.param(b"app:\n  id: 4711\n  key: whatever it is\n", "other text", id="YAML"),
        pytest.param(b"\xff\x00" * 40, "is not UTF-8 text", id="binary"),
        pytest.param(b"k" * 10_000, "is over 4 KiB", id="long"),
    ],
)
def test_a_key_file_that_is_no_key_is_refused_at_once(
    trail: tuple[Path, ChainHead], tmp_path: Path, data: bytes, why: str
) -> None:
    (tmp_path / "key").write_bytes(data)

    result = run("verify", trail[0], "--key-file", tmp_path / "key")

    assert result.exit_code == 1
    assert "NOT CHECKED: --key-file: " in result.output
    assert why in result.output


def test_base64_in_several_lines_is_a_key(tmp_path: Path) -> None:
    """As `openssl rand -base64 64` writes it."""
    (tmp_path / "key").write_text("QUJD" * 16 + "\n" + "QUJDRA==\n")

    assert read_audit_key(tmp_path / "key", key="k").reveal().count("\n") == 1


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    result = run("verify", tmp_path)

    assert result.exit_code == 1
    assert "NOT CHECKED: there is no audit trail in" in result.output


@pytest.mark.parametrize("rest", [(), ("--json",)])
def test_a_trail_that_was_removed_as_a_whole_is_a_finding(
    trail: tuple[Path, ChainHead], tmp_path: Path, rest: tuple[str, ...]
) -> None:
    directory, head = trail
    for path in list_segments(directory):
        path.unlink()

    result = run(
        "verify",
        directory,
        "--key-file",
        tmp_path / "key",
        "--head",
        f"{head.seq}:{head.hash}",
        *rest,
    )

    assert result.exit_code == 2
    assert f"the trail ends with record 0, but the head {head.seq}:" in result.output


@pytest.mark.parametrize(
    ("option", "head"),
    [
        ("--head", "7"),
        ("--head", "7:abc"),
        ("--head", "0:aaaaaaaaaaaa"),
        ("--head", "7:wwwwwwwwwwww"),
        ("--head-metric", "7:x"),
        ("--head-metric", "7:inf"),
        ("--head-metric", "7:nan"),
        ("--head-metric", "7:1e400"),
    ],
)
def test_what_is_no_head_is_refused(trail: tuple[Path, ChainHead], option: str, head: str) -> None:
    result = run("verify", trail[0], option, head)

    assert result.exit_code == 2
    assert "is no head" in result.output


def test_files_elsewhere_may_be_left_out(trail: tuple[Path, ChainHead], tmp_path: Path) -> None:
    directory, _ = trail
    list_segments(directory)[0].unlink()
    words = ("verify", directory, "--key-file", tmp_path / "key")

    assert run(*words).exit_code == 2
    assert run(*words, "--partial").exit_code == 0


def test_on_a_terminal_a_bar_shows_how_far_it_is(
    trail: tuple[Path, ChainHead], tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    words = ["audit", "verify", str(trail[0]), "--key-file", str(tmp_path / "key")]

    subprocess.run(
        [sys.executable, "-m", "icr_proxy", *words],
        stderr=theirs, stdout=subprocess.DEVNULL, check=True, timeout=GUARD_SECONDS,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 4096)
    os.close(ours)

    assert b"Verifying" in shown
    assert b"100%" in shown


def test_the_newest_records_are_shown(trail: tuple[Path, ChainHead]) -> None:
    result = run("tail", trail[0], "-n", "3", "--no-follow")
    told = run("tail", trail[0], "-n", "3", "--no-follow", "--json")

    assert len(result.output.splitlines()) == 3
    assert "read-5" in result.output
    assert [json.loads(line)["seq"] for line in told.output.splitlines()] == [22, 23, 24]


async def test_records_are_shown_as_they_come(trail: tuple[Path, ChainHead]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "icr_proxy", "audit", "tail", str(trail[0]), "-n", "1", "--json",
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


# -- a trail whose end is not there any more ------------------------------------------------------


@pytest.fixture
def cut(trail: tuple[Path, ChainHead], tmp_path: Path) -> Path:
    """Give a trail whose last file is gone, with an anchor that knows better."""
    directory, head = trail
    AnchorFile(tmp_path / "anchor").publish(head, file=None, trail=None, now=0.0)
    list_segments(directory)[-1].unlink()
    return directory


def accept(directory: Path, *words: str) -> Result:
    place = directory.parent
    return run(
        "accept", directory, "--anchor-file", place / "anchor", "--key-file", place / "key", *words
    )


def verify(directory: Path, *words: str) -> Result:
    place = directory.parent
    return run(
        "verify", directory, "--anchor-file", place / "anchor", "--key-file", place / "key", *words
    )


def start(directory: Path, **settings: Any) -> TrailWriter:
    return writer_in(directory, anchor_file=directory.parent / "anchor", **settings)


def test_a_proxy_does_not_start_with_a_cut_trail_and_names_the_command(cut: Path) -> None:
    before = {path.name: path.read_bytes() for path in cut.glob("audit-*")}

    for _ in range(2):
        with pytest.raises(StartError, match=r"icr-proxy audit accept .* --reason") as refused:
            start(cut)

    assert "the trail ends with record 16, but" in str(refused.value)
    assert {path.name: path.read_bytes() for path in cut.glob("audit-*")} == before
    assert verify(cut).exit_code == 2


def test_an_operator_accepts_a_restored_trail_and_the_auditor_decides(cut: Path) -> None:
    accepted = accept(cut, "--reason", "disk died, backup of Monday")
    start(cut).close()
    again = accept(cut, "--reason", "twice")
    result = verify(cut)

    assert accepted.exit_code == 0, accepted.output
    assert "Nothing to accept" in again.output
    assert result.exit_code == 2
    assert "rewound" in result.output
    assert "accepted by an operator: disk died, backup of Monday" in result.output
    known = re.findall(r"--accept-rewound \S+:[0-9a-f]{12}", accepted.output)[0].split()
    explained = verify(cut, *known)
    assert explained.exit_code == 0, explained.output
    assert "ACCEPTED: " in explained.output


def test_the_command_is_named_as_it_must_be_typed(cut: Path) -> None:
    config = AuditConfig(
        directory=cut, anchor_file=cut.parent / "anchor", key_file=cut.parent / "key"
    )

    with pytest.raises(StartError) as refused:
        check_trail(cut, config=config)

    command = str(refused.value).partition("run: icr-proxy audit ")[2]
    assert run(*shlex.split(command)).exit_code == 0
    check_trail(cut, config=config)


def test_what_cannot_be_recorded_is_not_accepted(cut: Path) -> None:
    before = (cut.parent / "anchor").read_text()

    with files_no_longer_than(10):
        result = accept(cut, "--reason", "why")

    assert isinstance(result.exception, StartError)
    assert "cannot be written: File too large" in str(result.exception)
    assert (cut.parent / "anchor").read_text() == before


def test_to_accept_one_cut_accepts_no_later_one(cut: Path) -> None:
    first = accept(cut, "--reason", "one").output
    known = re.findall(r"--accept-rewound \S+:[0-9a-f]{12}", first)[0].split()
    list_segments(cut)[-1].unlink()

    with pytest.raises(StartError, match="audit accept"):
        start(cut)
    accept(cut, "--reason", "two")

    assert verify(cut, *known).exit_code == 2


def test_a_proxy_that_goes_on_leaves_a_record_that_is_a_finding(cut: Path) -> None:
    anchor = cut.parent / "anchor"
    old = anchor.read_text()
    thread = TrailThread(
        open_writer=lambda: start(cut, on_failure="continue"),
        config=AuditConfig(directory=cut, anchor_file=anchor, on_failure="continue"),
        now=lambda: 0.0,
        clock=lambda: 0.0,
        report=lambda _landed: None,
    )
    thread.start()
    thread.put([read_of(1)])
    thread.stop()

    start(cut).close()  # it has been told; nothing stands in the way of later starts
    result = verify(cut)

    assert thread.writer.rewind is not None
    assert anchor.read_text().startswith(old)
    assert result.exit_code == 2
    assert "nobody accepted that" in result.output
    assert "cut " not in result.output


def test_all_files_gone_is_a_cut_too(cut: Path) -> None:
    for path in list_segments(cut):
        path.unlink()

    with pytest.raises(StartError, match="the trail ends with record 0"):
        start(cut)
    assert accept(cut, "--reason", "new disk").exit_code == 0
    start(cut).close()


def test_a_sealed_trail_is_not_gone_on_with_without_its_key(cut: Path) -> None:
    result = run("accept", cut, "--anchor-file", cut.parent / "anchor", "--reason", "why")

    assert isinstance(result.exception, StartError)
    assert f"is sealed with key {KEY.fingerprint}; name" in str(result.exception)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_trail_is_accepted_by_the_user_of_the_proxy(cut: Path) -> None:
    """A record written by root could not be read by a proxy that is not."""
    os.chown(cut, 12345, -1)

    result = accept(cut, "--reason", "why")

    assert isinstance(result.exception, StartError)
    assert "belongs to user 12345; run this as that user" in str(result.exception)


def test_an_anchor_that_is_garbled_is_named_and_can_be_given_up(cut: Path) -> None:
    (cut.parent / "anchor").write_text("nonsense\n")

    with pytest.raises(StartError, match=r"audit\.anchor_file: .* is not an anchor .* accept"):
        start(cut)
    assert verify(cut).exit_code == 1
    assert accept(cut, "--reason", "disk error").exit_code == 0
    start(cut).close()

    result = verify(cut)
    assert result.exit_code == 2
    assert "could not be read; accepted by an operator: disk error" in result.output


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines"])
def test_a_reason_is_a_sentence(cut: Path, reason: str) -> None:
    assert accept(cut, "--reason", reason).exit_code == 2


def test_nothing_is_accepted_while_a_proxy_writes(cut: Path) -> None:
    writer = start(cut, on_failure="continue")
    result = accept(cut, "--reason", "why")
    writer.close()

    assert isinstance(result.exception, StartError)
    assert "in use by process" in str(result.exception)


def test_an_anchor_that_cannot_be_written_is_told(cut: Path) -> None:
    anchor = cut.parent / "anchor"
    anchor.unlink()
    anchor.mkdir()

    result = accept(cut, "--reason", "why")

    assert isinstance(result.exception, StartError)
    assert "cannot be written: " in str(result.exception)
