"""What a start does about the end of a trail: repairs what a crash left, and nothing else."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from icr_proxy.audit import recovery
from icr_proxy.audit.recovery import HEADER_MOST, find_end, find_hash, recover
from icr_proxy.audit.segments import list_segments, segment_name
from icr_proxy.errors import StartError
from tests.support.audit_fixture import kinds_in, read_of, records_in, writer_in


def begun(directory: Path) -> Path:
    """Write a trail of one file."""
    writer = writer_in(directory)
    writer.append([read_of(1), read_of(2)], sync=True)
    writer.close()
    return list_segments(directory)[0]


def test_to_survey_changes_nothing(tmp_path: Path) -> None:
    path = begun(tmp_path)
    path.write_bytes(path.read_bytes() + b"torn")
    before = path.read_bytes()

    left = find_end(tmp_path)

    assert (left.head.seq, left.file, left.repairs) == (4, path.name, ())
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(b'{"seq":9}\n', id="a line that is no record"),
        pytest.param(b"\0" * 20 + b"\n", id="zeros that end in a line break"),
        pytest.param(b"\n", id="an empty line"),
    ],
)
def test_whole_lines_that_are_no_records_stay(tmp_path: Path, changed: bytes) -> None:
    """A crash does not leave a line break behind what it tore: somebody changed a record."""
    path = begun(tmp_path)
    data = path.read_bytes() + changed
    path.write_bytes(data)

    left = recover(tmp_path, now=0.0)

    assert (left.head.seq, left.repairs) == (4, ())
    assert path.read_bytes() == data
    assert [each.name for each in tmp_path.glob("*.torn*")] == []


def test_a_file_without_any_record_stays_unless_a_crash_left_it(tmp_path: Path) -> None:
    first = begun(tmp_path)
    zeros = tmp_path / segment_name(5, at=0.0)
    zeros.write_bytes(b"\0" * (HEADER_MOST + 1))
    lines = tmp_path / segment_name(6, at=0.0)
    lines.write_bytes(b"no record\n")

    left = recover(tmp_path, now=0.0)

    assert (left.file, left.head.seq, left.repairs) == (first.name, 4, ())
    assert zeros.exists()
    assert lines.exists()


def test_what_is_set_aside_is_recorded_though_the_first_start_was_killed(tmp_path: Path) -> None:
    path = begun(tmp_path)
    path.write_bytes(path.read_bytes() + b"torn")
    recover(tmp_path, now=0.0)  # and then it was killed

    for _ in range(2):
        writer = writer_in(tmp_path)
        writer.append([read_of(3)], sync=True)
        writer.close()

    assert kinds_in(tmp_path).count("repair") == 1
    [repair] = [record for record in records_in(tmp_path) if record["kind"] == "repair"]
    assert repair["torn_sha256"] == hashlib.sha256(b"torn").hexdigest()


def test_what_is_set_aside_never_overwrites_what_was_before(tmp_path: Path) -> None:
    path = begun(tmp_path)
    for torn in (b"one", b"other"):
        path.write_bytes(path.read_bytes() + torn)
        left = recover(tmp_path, now=0.0)

    names = [repair.torn_file for repair in left.repairs]
    assert names == [f"{path.name}.torn", f"{path.name}.torn.1"]
    assert [(tmp_path / name).read_bytes() for name in names] == [b"one", b"other"]
    assert stat.S_IMODE((tmp_path / names[0]).stat().st_mode) == 0o600


@pytest.mark.parametrize("target", ["precious", "gone"])
def test_what_is_set_aside_goes_through_no_link(tmp_path: Path, target: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path = begun(tmp_path / "trail")
    path.write_bytes(path.read_bytes() + b"torn")
    (tmp_path / "trail" / f"{path.name}.torn").symlink_to(tmp_path / target)

    [repair] = recover(tmp_path / "trail", now=0.0).repairs

    assert precious.read_text() == "precious"
    assert not (tmp_path / "gone").exists()
    assert repair.torn_file == f"{path.name}.torn.1"


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_a_file_of_the_trail_that_is_no_plain_file_is_named(tmp_path: Path, kind: str) -> None:
    path = begun(tmp_path)
    other = tmp_path / segment_name(5, at=0.0)
    if kind == "link":
        other.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(other)
    else:
        other.mkdir()

    with pytest.raises(StartError, match=other.name):
        recover(tmp_path, now=0.0)


def test_the_hash_of_any_record_is_found(tmp_path: Path) -> None:
    begun(tmp_path)
    writer = writer_in(tmp_path)
    writer.append([read_of(3)], sync=True)
    writer.close()

    for record in records_in(tmp_path):
        assert find_hash(tmp_path, record["seq"]) == record["hash"]
    assert find_hash(tmp_path, 99) is None


def test_there_is_an_end_to_what_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_ASIDE_MOST", 1)
    path = begun(tmp_path)
    (tmp_path / f"{path.name}.torn").touch()
    path.write_bytes(path.read_bytes() + b"torn")

    with pytest.raises(StartError, match="too many files were set aside already"):
        recover(tmp_path, now=0.0)
