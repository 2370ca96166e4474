from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from icr_proxy.audit.segments import list_segments
from icr_proxy.errors import StartError
from tests.support.app_fixture import Clock
from tests.support.audit_fixture import KEY, kinds_in, read_of, records_in, writer_in


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """What a full disk is to a writer; Python ignores the signal, so the call fails."""
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_begins_with_where_it_goes_on_from_and_ends_with_its_end(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    writer.append([read_of(1), read_of(2)], sync=True)
    writer.close()

    header, *_, end = records_in(tmp_path)

    assert kinds_in(tmp_path) == ["segment", "request", "request", "end"]
    assert (header["format"], header["key"], header["pid"]) == (1, KEY.fingerprint, os.getpid())
    assert end["records"] == 4


def test_nothing_is_written_before_there_is_something_to_say(tmp_path: Path) -> None:
    writer_in(tmp_path).close()

    assert list_segments(tmp_path) == []


def test_each_start_goes_on_in_a_file_of_its_own(tmp_path: Path) -> None:
    for number in (1, 2):
        writer = writer_in(tmp_path)
        writer.append([read_of(number)], sync=False)
        writer.close()

    first, second = list_segments(tmp_path)
    records = records_in(tmp_path)
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[3]["previous"] == first.name
    assert records[3]["prev"] == records[2]["hash"]
    assert second.name.startswith("audit-0000000000000004-")


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)

    with pytest.raises(StartError, match="in use"):
        writer_in(tmp_path)
    writer.close()


@pytest.mark.parametrize("sync", [True, False])
def test_what_is_known_to_be_on_the_disk_is_told_apart(tmp_path: Path, sync: bool) -> None:  # noqa: FBT001
    writer = writer_in(tmp_path)
    writer.append([read_of(1)], sync=sync)

    assert (writer.head.seq, writer.synced.seq) == (2, 2 if sync else 1)
    writer.sync()
    assert writer.synced == writer.head
    writer.close()


def test_a_new_file_is_begun_at_a_size(tmp_path: Path) -> None:
    writer = writer_in(tmp_path, segment_size=4096)
    for number in range(20):
        writer.append([read_of(number)], sync=False)
    writer.close()

    sizes = [path.stat().st_size for path in list_segments(tmp_path)]
    assert len(sizes) > 2
    assert max(sizes) < 4096 + 1500


def test_a_new_file_is_begun_at_an_age(tmp_path: Path) -> None:
    clock = Clock(1_790_000_000.0)
    writer = writer_in(tmp_path, now=clock, segment_age=60.0)
    for _ in range(3):
        writer.append([read_of(1)], sync=False)
        clock.at += 40
    writer.close()

    assert kinds_in(tmp_path).count("segment") == 2


def test_only_so_many_files_are_kept_and_that_is_recorded(tmp_path: Path) -> None:
    clock = Clock(1_790_000_000.0)
    writer = writer_in(tmp_path, now=clock, segment_age=60.0, keep=2)
    for _ in range(4):
        writer.append([read_of(1)], sync=False)
        clock.at += 60
    writer.close()

    files = list_segments(tmp_path)
    pruned = [record for record in records_in(tmp_path) if record["kind"] == "pruned"]
    assert len(files) == 2
    assert pruned[-1]["before"] == records_in(tmp_path)[0]["seq"]
    assert len(pruned[-1]["files"]) == 1


def test_files_are_kept_for_so_many_days(tmp_path: Path) -> None:
    clock = Clock(1_790_000_000.0)
    writer = writer_in(tmp_path, now=clock, segment_age=60.0, keep_days=2)
    writer.append([read_of(1)], sync=False)
    [old] = list_segments(tmp_path)
    clock.at += 60
    writer.append([read_of(2)], sync=False)
    os.utime(old, (0, 0))
    clock.at += 60
    writer.append([read_of(3)], sync=False)
    writer.close()

    assert len(list_segments(tmp_path)) == 2
    assert not old.exists()


@pytest.mark.parametrize(
    ("what", "kinds"),
    [
        pytest.param("renamed", ["segment", "request", "end"], id="renamed"),
        pytest.param("removed", [], id="removed"),
        pytest.param("truncated", [], id="truncated"),
        pytest.param("appended", ["segment", "request", "x"], id="appended"),
    ],
)
def test_a_file_that_somebody_touched_is_noticed_and_told(
    tmp_path: Path, what: str, kinds: list[str]
) -> None:
    directory = tmp_path / "trail"
    writer = writer_in(directory)
    writer.append([read_of(1)], sync=False)
    [path] = list_segments(directory)
    moved = directory / "old"
    if what == "renamed":
        path.rename(moved)
    elif what == "removed":
        path.unlink()
    elif what == "truncated":
        os.truncate(path, 0)
    else:
        with path.open("a") as file:
            file.write('{"kind":"x"}\n')

    writer.append([read_of(2)], sync=False)
    writer.close()

    found = [record for record in records_in(directory) if record["kind"] == "moved"]
    assert [(record["file"], record["found"]) for record in found] == [(path.name, what)]
    before = moved if what == "renamed" else path
    assert kinds_in(directory)[-4:] == ["segment", "moved", "request", "end"]
    if kinds:
        lines = before.read_text().splitlines()
        assert [line.split('"kind":"')[1].split('"')[0] for line in lines] == kinds


def test_what_does_not_fit_leaves_nothing_half_there_and_can_be_tried_again(
    tmp_path: Path,
) -> None:
    writer = writer_in(tmp_path)
    writer.append([read_of(1)], sync=True)
    [path] = list_segments(tmp_path)
    before, head = path.read_bytes(), writer.head

    with files_no_longer_than(len(before) + 100), pytest.raises(OSError, match="too large"):
        writer.append([read_of(2)], sync=True)
    assert path.read_bytes() == before
    assert writer.head == head
    writer.append([read_of(2)], sync=True)
    writer.close()

    assert kinds_in(tmp_path) == ["segment", "request", "request", "end"]


def test_a_file_that_cannot_be_begun_is_taken_back(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)

    with files_no_longer_than(10), pytest.raises(OSError, match="too large"):
        writer.append([read_of(1)], sync=True)
    assert list_segments(tmp_path) == []
    writer.append([read_of(1)], sync=True)
    writer.close()

    assert [record["seq"] for record in records_in(tmp_path)] == [1, 2, 3]


def test_a_repair_is_recorded_when_the_next_record_is(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    writer.append([read_of(1)], sync=True)
    writer.close()
    [path] = list_segments(tmp_path)
    path.write_bytes(path.read_bytes() + b"torn")

    writer = writer_in(tmp_path)
    writer.append([read_of(2)], sync=True)
    writer.close()

    assert kinds_in(tmp_path) == [
        "segment", "request", "end", "segment", "repair", "request", "end",
    ]  # fmt: skip
