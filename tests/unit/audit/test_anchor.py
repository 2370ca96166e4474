"""The anchor file: what it keeps, what it forgets, what it says about a trail."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icr_proxy.audit import anchor as anchor_module
from icr_proxy.audit.anchor import (
    NEWEST_KEPT,
    AnchorFile,
    find_rewind,
    has_heads,
    parse_history,
    read_history,
    thin_out,
)
from icr_proxy.audit.chain import ChainHead
from icr_proxy.audit.segments import list_segments
from tests.support.audit_fixture import cut_last_line
from tests.support.audit_trails import write_trail

A, B = "a" * 64, "b" * 64


def line(seq: int, digest: str = A, **more: Any) -> bytes:
    return json.dumps({"seq": seq, "hash": digest} | more).encode() + b"\n"


def publish(path: Path, *heads: ChainHead, rewound: bool = False) -> None:
    anchor = AnchorFile(path)
    for head in heads:
        anchor.publish(head, file="f", trail=None, now=0.0, rewound=rewound)


def test_each_new_head_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "anchor"

    publish(path, ChainHead(1, A), ChainHead(1, A), ChainHead(2, B))
    publish(path, ChainHead(3, A))

    assert [json.loads(each)["seq"] for each in path.read_text().splitlines()] == [1, 2, 3]
    assert read_history(path).newest == parse_history(line(3)).newest
    assert [each.name for each in tmp_path.iterdir()] == ["anchor"]


def test_nothing_is_published_before_there_is_a_record(tmp_path: Path) -> None:
    publish(tmp_path / "anchor", ChainHead())

    assert not (tmp_path / "anchor").exists()


def test_an_anchor_of_an_earlier_version_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "anchor"
    old = {"seq": 7, "hash": A, "file": None, "time": "2026-01-01T00:00:00.000+00:00"}
    path.write_text(json.dumps(old) + "\n")

    publish(path, ChainHead(8, B))

    assert [known.seq for known in read_history(path).heads] == [7, 8]


@pytest.mark.parametrize(
    ("raw", "known", "is_garbled"),
    [
        pytest.param(b"", [], False, id="empty"),
        pytest.param(b"\0" * 200, [], False, id="zeros of a power cut"),
        pytest.param(line(1)[:-20], [], False, id="half a line, the first"),
        pytest.param(line(1) + line(2)[:-20], [1], False, id="half a line"),
        pytest.param(line(1) + line(2)[:-1], [1, 2], False, id="no line break at the end"),
        pytest.param(line(1) + b"\0\0" + line(2), [1], False, id="zeros between"),
        pytest.param(line(1) + b'{"se\n' + line(2), [1, 2], False, id="half a line that was ended"),
        pytest.param(line(9) + line(4, rewound=True) + line(5), [4, 5], False, id="rewound"),
        pytest.param(b"nonsense\n", [], True, id="no anchor"),
        pytest.param(b"[]\n1\nnull\n", [], True, id="JSON of another kind"),
        pytest.param(line(-1) + line(10**30), [], True, id="no numbers of records"),
        pytest.param(line(1, "A" * 64) + line(True), [], True, id="no hash, no number"),
        pytest.param(b"[" * 100_000 + b"\n", [], True, id="deep"),
        pytest.param(b"\xff\xfe\n", [], True, id="no text"),
    ],
)
def test_what_is_no_head_tells_nothing(raw: bytes, known: list[int], is_garbled: bool) -> None:  # noqa: FBT001
    history = parse_history(raw)

    assert [each.seq for each in history.heads] == known
    assert history.is_garbled == is_garbled


def test_a_crash_within_a_line_spoils_no_later_one(tmp_path: Path) -> None:
    path = tmp_path / "anchor"
    path.write_bytes(line(1) + line(2)[:-20])

    publish(path, ChainHead(3, B))

    assert [known.seq for known in read_history(path).heads] == [1, 3]


def test_a_long_history_is_thinned_and_forgets_no_rewind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchor_module, "LONGEST", 200_000)
    path = tmp_path / "anchor"
    path.write_bytes(
        b"".join(line(seq) for seq in range(1, 4000))
        + line(5000)
        + line(17, rewound=True)
        + b"".join(line(seq) for seq in range(18, 18 + NEWEST_KEPT))
    )

    publish(path, ChainHead(9000, B), ChainHead(9001, B))

    text = path.read_bytes()
    seqs = [json.loads(each)["seq"] for each in text.splitlines()]
    assert text.count(b"\n") < 4000
    assert seqs[-NEWEST_KEPT:] == [*range(20, 18 + NEWEST_KEPT), 9000, 9001]
    assert line(5000) + line(17, rewound=True) in text
    assert [each.name for each in tmp_path.iterdir()] == ["anchor"]


def test_the_newest_lines_are_never_thinned() -> None:
    lines = [line(seq) for seq in range(NEWEST_KEPT)]

    assert thin_out(lines) == lines


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda path: path.symlink_to(path.with_name("other")), id="a link"),
        pytest.param(lambda path: path.symlink_to(path.with_name("gone")), id="a dangling link"),
        pytest.param(lambda path: os.link(path.with_name("other"), path), id="a second name"),
        pytest.param(os.mkfifo, id="a pipe"),
        pytest.param(Path.mkdir, id="a directory"),
    ],
)
def test_what_is_no_plain_file_is_not_written_to(
    tmp_path: Path, place: Callable[[Path], object]
) -> None:
    (tmp_path / "other").write_text("precious")
    place(tmp_path / "anchor")

    with pytest.raises(OSError, match=r"symbolic links|directory|regular|device|other names"):
        publish(tmp_path / "anchor", ChainHead(1, A))

    assert (tmp_path / "other").read_text() == "precious"
    assert not (tmp_path / "gone").exists()


# -- compared with a trail ------------------------------------------------------------------------


def anchored(tmp_path: Path) -> tuple[Path, Path]:
    """Write a trail of two files and an anchor that knows its end."""
    directory, anchor = tmp_path / "trail", tmp_path / "anchor"
    head = write_trail(directory, files=2)
    publish(anchor, head)
    return directory, anchor


def test_a_trail_that_went_on_agrees_with_its_anchor(tmp_path: Path) -> None:
    """As a rule: a killed process has written more than it published."""
    directory, anchor = anchored(tmp_path)
    assert find_rewind(anchor, directory=directory) is None

    write_trail(directory, files=2)

    assert find_rewind(anchor, directory=directory) is None


def test_an_anchor_older_than_what_is_kept_tells_nothing(tmp_path: Path) -> None:
    directory, anchor = anchored(tmp_path)
    write_trail(directory, files=1)
    for path in list_segments(directory)[:2]:
        path.unlink()

    assert find_rewind(anchor, directory=directory) is None


def test_an_anchor_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    directory, anchor = anchored(tmp_path)
    anchor.unlink()

    assert find_rewind(anchor, directory=directory) is None
    assert not has_heads(anchor)


def last_of(directory: Path) -> Path:
    return list_segments(directory)[-1]


def remove_all(directory: Path) -> None:
    for path in list_segments(directory):
        path.unlink()


def tear(directory: Path) -> None:
    os.truncate(last_of(directory), last_of(directory).stat().st_size - 10)


def zero_last_line(directory: Path) -> None:
    data = last_of(directory).read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    last_of(directory).write_bytes(data[:start] + b"\0" * (len(data) - start))


def zero_last_file(directory: Path) -> None:
    last_of(directory).write_bytes(b"\0" * last_of(directory).stat().st_size)


def change_last_line(directory: Path) -> None:
    last_of(directory).write_bytes(last_of(directory).read_bytes().replace(b'"end"', b'"enx"'))


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda directory: cut_last_line(last_of(directory)), id="one record"),
        pytest.param(lambda directory: cut_last_line(last_of(directory), lines=5), id="five"),
        pytest.param(lambda directory: last_of(directory).unlink(), id="the last file"),
        pytest.param(remove_all, id="all files"),
        pytest.param(tear, id="torn, as by a crash"),
        pytest.param(zero_last_line, id="zeros for the last line"),
        pytest.param(zero_last_file, id="zeros for the last file"),
        pytest.param(change_last_line, id="the last record changed"),
        pytest.param(lambda directory: last_of(directory).write_bytes(b""), id="emptied"),
    ],
)
def test_a_trail_whose_end_was_cut_contradicts_its_anchor(
    tmp_path: Path, cut: Callable[[Path], object]
) -> None:
    directory, anchor = anchored(tmp_path)
    known = read_history(anchor).newest

    cut(directory)
    rewind = find_rewind(anchor, directory=directory)

    assert rewind is not None
    assert rewind.known == known
    assert "the trail ends with record" in rewind.detail


def test_another_trail_contradicts_the_anchor(tmp_path: Path) -> None:
    _, anchor = anchored(tmp_path)
    write_trail(tmp_path / "other", files=3)

    rewind = find_rewind(anchor, directory=tmp_path / "other")

    assert rewind is not None
    assert f"record {read_history(anchor).heads[0].seq} is not the one that" in rewind.detail


def test_the_anchor_of_another_trail_is_named(tmp_path: Path) -> None:
    directory, anchor = anchored(tmp_path)
    theirs = AnchorFile(anchor)
    theirs.publish(ChainHead(3, A), file=None, trail="7" * 32, now=0.0)
    anchor.write_bytes(anchor.read_bytes().splitlines(keepends=True)[-1])

    rewind = find_rewind(anchor, directory=directory)

    assert rewind is not None
    assert f"is the anchor of trail {'7' * 32}, but" in rewind.detail


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(lambda path: path.write_text("?\n"), "is not an anchor", id="garbled"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "cannot be read", id="directory"),
        pytest.param(make_pipe, "cannot be read", id="a pipe"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to(path)), "cannot be", id="a loop"),
    ],
)
def test_an_anchor_that_cannot_be_read_vouches_for_nothing(
    tmp_path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    directory, anchor = anchored(tmp_path)
    spoil(anchor)

    rewind = find_rewind(anchor, directory=directory)

    assert rewind is not None
    assert rewind.known is None
    assert why in rewind.detail
