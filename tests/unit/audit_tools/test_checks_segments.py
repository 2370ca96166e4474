from __future__ import annotations

import io
from pathlib import Path

import pytest

from icr_proxy.audit_tools.checks import MOST_FINDINGS, examine
from tests.support.audit_trails import KEYS, read_trail, write_trail


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """One file: a header, 5 requests, an end."""
    directory = tmp_path_factory.mktemp("trail")
    write_trail(directory, files=1, records=7)
    [(_, data)] = read_trail(directory)
    return data.splitlines(keepends=True)


def changed(line: bytes) -> bytes:
    return line.replace(b'"status":200', b'"status":500')


def found(lines: list[bytes]) -> list[tuple[str, int | None, int | None]]:
    checked = examine("f", io.BytesIO(b"".join(lines)), keys=KEYS)
    return [(each.kind, each.line, each.seq) for each in checked.findings]


def test_a_file_that_nobody_touched_is_whole(lines: list[bytes]) -> None:
    checked = examine("f", io.BytesIO(b"".join(lines)), keys=KEYS)

    assert checked.findings == []
    assert (checked.records, checked.torn, checked.is_checked) == (7, 0, True)
    assert checked.first is not None
    assert checked.last is not None
    assert (checked.first.seq, checked.last.seq) == (1, 7)
    assert checked.since is not None
    assert checked.until is not None


def test_every_kind_of_tampering_is_told_with_its_place(lines: list[bytes]) -> None:
    a, b, c, d, e, f, g = lines

    assert found([a, b, changed(c), d, e, f, g]) == [("changed", 3, None)]
    assert found([a, b, d, e, f, g]) == [("removed", 3, 4)]
    assert found([a, b, e, f, g]) == [("removed", 3, 5)]
    assert found([a, c, b, d, e, f, g]) == [("reordered", 3, 2)]
    assert found([a, b, b, c, d, e, f, g]) == [("repeated", 3, 2)]
    assert found([a, b, c, b"{}\n", d, e, f, g])[0] == ("changed", 4, None)
    assert found([a, b, c, d, e, f, g, b]) == [("inserted", 8, 2), ("repeated", 8, 2)]
    assert found([b, c, d, e, f, g]) == []  # what is missing before it, the other files show


def test_a_record_of_another_trail_has_its_number_twice(lines: list[bytes], tmp_path: Path) -> None:
    write_trail(tmp_path, files=1, records=9)
    [(_, other)] = read_trail(tmp_path)
    foreign = other.splitlines(keepends=True)[6]  # sealed with the same key, number 7

    assert found([*lines[:6], foreign, *lines[6:]])[0][0] in ("changed", "inserted")
    assert ("inserted", 8, 7) in found([*lines, foreign])


def test_a_torn_end_is_measured(lines: list[bytes]) -> None:
    checked = examine("f", io.BytesIO(b"".join(lines)[:-10]), keys=KEYS)

    assert checked.torn == len(lines[-1]) - 10
    assert checked.records == 6


def test_with_no_key_hashes_alone_are_checked(lines: list[bytes]) -> None:
    checked = examine("f", io.BytesIO(b"".join(lines)), keys={})

    assert (checked.findings, checked.is_checked) == ([], False)
    assert [
        each.kind for each in examine("f", io.BytesIO(changed(b"".join(lines))), keys={}).findings
    ] == ["changed"] * 5


def test_a_record_without_its_mac_is_forged_even_if_no_key_is_at_hand(
    lines: list[bytes],
) -> None:
    bare = lines[1][: lines[1].index(b',"mac"')] + b"}\n"

    checked = examine("f", io.BytesIO(b"".join([lines[0], bare, *lines[2:]])), keys={})

    assert [(each.kind, each.line) for each in checked.findings] == [("forged", 2)]


def test_the_hash_of_a_record_that_is_asked_for_is_told(lines: list[bytes]) -> None:
    checked = examine("f", io.BytesIO(b"".join(lines)), keys=KEYS, wanted=frozenset({3, 99}))

    assert list(checked.marks) == [3]
    assert checked.marks[3].encode() in lines[2]


def test_a_file_of_another_kind_is_not_told_line_by_line_for_ever() -> None:
    checked = examine("f", io.BytesIO(b"x\n" * (MOST_FINDINGS + 5)), keys=KEYS)

    assert len(checked.findings) == MOST_FINDINGS
    assert (checked.first, checked.records) == (None, 0)


@pytest.mark.parametrize("data", [b"", b"[]\n", b"\xff\n"], ids=["empty", "a list", "no text"])
def test_what_is_no_trail_breaks_nothing(data: bytes) -> None:
    checked = examine("f", io.BytesIO(data), keys=KEYS)

    assert checked.records == 0
    assert checked.since is None
