from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from icr_proxy.files import replace_file, signature, write_file
from tests.unit.audit.test_writer import files_no_longer_than


@pytest.mark.parametrize("replace", [False, True])
def test_a_written_key_is_readable_by_its_owner_alone(tmp_path: Path, *, replace: bool) -> None:
    file = tmp_path / "k.pem"

    write_file(file, b"pem", mode=0o600, replace=replace)

    assert file.read_bytes() == b"pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_an_open_file_that_is_replaced_becomes_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "k.pem"
    file.write_text("old")
    file.chmod(0o644)

    write_file(file, b"new", mode=0o600, replace=True)

    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    file = tmp_path / "k.pem"
    file.write_text("old")

    with pytest.raises(FileExistsError):
        write_file(file, b"new", mode=0o600, replace=False)
    assert file.read_text() == "old"


def test_what_cannot_be_put_in_place_leaves_no_draft(tmp_path: Path) -> None:
    folder = tmp_path / "k.pem"
    folder.mkdir()

    with pytest.raises(OSError, match=r"k\.pem"):
        write_file(folder, b"new", mode=0o600, replace=True)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_draft_that_a_crash_left_stands_in_nobodys_way(tmp_path: Path) -> None:
    """In a container each process has the number of the one before."""
    (tmp_path / f".key.{os.getpid()}").touch()

    write_file(tmp_path / "key", b"pem", mode=0o600, replace=True)

    assert (tmp_path / "key").read_bytes() == b"pem"


@pytest.mark.parametrize("replace", [True, False])
def test_a_key_is_written_through_no_link(tmp_path: Path, replace: bool) -> None:  # noqa: FBT001
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "key").symlink_to("precious")

    with suppress(FileExistsError):
        write_file(tmp_path / "key", b"pem", mode=0o600, replace=replace)

    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "key").is_symlink() != replace


@pytest.mark.parametrize("replace", [True, False])
def test_a_key_that_does_not_fit_leaves_nothing(tmp_path: Path, replace: bool) -> None:  # noqa: FBT001
    with files_no_longer_than(10), pytest.raises(OSError, match="too large"):
        write_file(tmp_path / "key", b"k" * 100, mode=0o600, replace=replace)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_a_key_does_not_take_the_place_of_a_pipe_or_a_device(tmp_path: Path, name: str) -> None:
    """As root, `--out /dev/null` or `/dev/stdout` would replace it for the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")

    with pytest.raises(OSError, match="Not a regular file"):
        write_file(tmp_path / name, b"pem", mode=0o600, replace=True)

    assert {each.name for each in tmp_path.iterdir()} == {"pipe", "link"}
    assert (tmp_path / "link").is_symlink()


def test_a_trial_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")

    replace_file(tmp_path / "token", [b"new"], mode=0o600, is_trial=True)

    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_a_change_that_keeps_size_and_modification_time_is_seen(tmp_path: Path) -> None:
    """`cp -p` onto the same file keeps both."""
    file = tmp_path / "secret"
    file.write_text("one")
    before, found = signature(file), file.stat()

    file.write_text("two")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))

    assert file.stat().st_mtime_ns == found.st_mtime_ns
    assert signature(file) != before


def test_what_is_no_file_has_no_signature(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert [signature(tmp_path / name) for name in ("pipe", "gone", ".")] == [None] * 3
