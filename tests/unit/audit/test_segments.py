from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from icr_proxy.audit.recovery import recover
from icr_proxy.audit.segments import (
    LOCK,
    claim_directory,
    create_segment,
    is_in_use,
    list_segments,
    segment_name,
)
from icr_proxy.audit.writer import check_trail
from icr_proxy.config.models import AuditConfig
from icr_proxy.errors import StartError
from tests.support.audit_fixture import read_of, writer_in


def only_file(directory: Path) -> Path:
    [path] = list_segments(directory)
    return path


def test_files_are_named_so_that_they_sort() -> None:
    names = [segment_name(seq, at=0.0) for seq in (9, 10, 1_000_000)]

    assert names == sorted(names)
    assert names[0] == "audit-0000000000000009-19700101T000000Z.jsonl"


def test_a_directory_that_is_not_there_is_made_for_us_alone(tmp_path: Path) -> None:
    directory = tmp_path / "trail"

    os.close(claim_directory(directory))

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_in_which_others_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)

    with pytest.raises(StartError, match=r"others may write to .*; chmod go-w"):
        claim_directory(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)

    with pytest.raises(StartError, match=r"belongs to user 12345, .*; chown it to user 0"):
        claim_directory(tmp_path)
    with pytest.raises(StartError, match="belongs to user 12345"):
        check_trail(tmp_path, config=AuditConfig(directory=tmp_path))


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda path: path.symlink_to(path.parent.parent / "precious"), id="a link"),
        pytest.param(lambda path: path.symlink_to(path.parent.parent / "gone"), id="a dangling"),
        pytest.param(lambda path: os.link(path.parent.parent / "precious", path), id="a name"),
        pytest.param(os.mkfifo, id="a pipe"),
        pytest.param(Path.mkdir, id="a directory"),
    ],
)
def test_a_lock_that_is_no_plain_file_is_refused_and_left_alone(
    tmp_path: Path, place: Callable[[Path], object]
) -> None:
    precious, directory = tmp_path / "precious", tmp_path / "trail"
    precious.write_text("precious")
    directory.mkdir(mode=0o700)
    place(directory / LOCK)

    with pytest.raises(StartError, match=r"audit\.lock is a link or no regular file; remove it"):
        claim_directory(directory)

    assert not is_in_use(directory)
    assert precious.read_text() == "precious"
    assert not (tmp_path / "gone").exists()


def test_a_lock_that_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("4711\n")

    os.close(claim_directory(tmp_path))

    assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("name", ["file", "missing/trail"])
def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartError, match=r"audit\.directory: .* cannot be used"):
        claim_directory(tmp_path / name)


def test_a_directory_has_one_writer(tmp_path: Path) -> None:
    assert not is_in_use(tmp_path)
    lock = claim_directory(tmp_path)
    assert is_in_use(tmp_path)

    with pytest.raises(StartError, match=f"in use by process {os.getpid()}"):
        claim_directory(tmp_path)
    os.close(lock)

    assert not is_in_use(tmp_path)


def test_a_file_is_ours_alone_and_never_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    os.close(create_segment(path))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        create_segment(path)


def test_an_empty_directory_is_the_beginning(tmp_path: Path) -> None:
    left = recover(tmp_path, now=0.0)

    assert (left.head.seq, left.file, left.repairs) == (0, None, ())


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param(b'{"seq":', id="half a record"),
        pytest.param(b"\0" * 5000, id="zeros of a power cut"),
    ],
)
def test_what_a_crash_tore_is_set_aside_and_told(tmp_path: Path, torn: bytes) -> None:
    writer = writer_in(tmp_path)
    writer.append([read_of(1), read_of(2)], sync=True)
    head = writer.head
    writer.close()
    path = only_file(tmp_path)
    whole = path.read_bytes().rpartition(b'{"seq":4')[0]  # as if it had ended before its end
    path.write_bytes(whole + torn)

    left = recover(tmp_path, now=0.0)

    assert left.head == head
    assert left.file == path.name
    [repair] = left.repairs
    assert (repair.file, repair.torn_bytes) == (path.name, len(torn))
    assert (tmp_path / repair.torn_file).read_bytes() == torn
    assert path.read_bytes() == whole
    assert recover(tmp_path, now=0.0).repairs == left.repairs  # until it is recorded


def test_a_file_that_was_hardly_begun_is_set_aside_as_a_whole(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    writer.append([read_of(1)], sync=True)
    writer.close()
    fresh = tmp_path / segment_name(5, at=0.0)
    fresh.touch()

    left = recover(tmp_path, now=0.0)

    assert left.head.seq == 3
    assert [repair.torn_file for repair in left.repairs] == [f"{fresh.name}.torn"]
    assert not fresh.exists()


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / segment_name(1, at=0.0)).mkdir()

    with pytest.raises(StartError, match="Is a directory"):
        recover(tmp_path, now=0.0)
