"""Bytes that a start set aside are compared with what it recorded of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from icr_proxy.audit.segments import list_segments
from icr_proxy.audit_tools.findings import CheckedSegment
from icr_proxy.audit_tools.set_aside import compare_aside
from icr_proxy.audit_tools.verification import result_of, verify
from tests.support.audit_trails import KEYS, write_trail


def repaired(tmp_path: Path) -> tuple[Path, Path]:
    """Write a trail that a crash tore once; give its directory and what was set aside."""
    directory = tmp_path / "trail"
    write_trail(directory, files=1)
    [path] = list_segments(directory)
    path.write_bytes(path.read_bytes() + b'{"seq":9,"pr')
    write_trail(directory, files=1)
    return directory, directory / f"{path.name}.torn"


def test_a_trail_that_crashed_is_repaired_and_not_clean(tmp_path: Path) -> None:
    directory, aside = repaired(tmp_path)

    verdict = verify([directory], keys=KEYS)

    assert aside.read_bytes() == b'{"seq":9,"pr'
    assert verdict.findings == ()
    assert result_of(verdict, chain_only=False) == "repaired"


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        pytest.param(Path.unlink, "removed", id="removed"),
        pytest.param(lambda path: path.write_bytes(b'{"seq":9,"pq'), "changed", id="changed"),
        pytest.param(lambda path: path.write_bytes(b'{"seq":9,"p'), "changed", id="shorter"),
        pytest.param(lambda path: path.write_bytes(b'{"seq":9,"pr!'), "changed", id="longer"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "removed", id="a directory"),
    ],
)
def test_bytes_that_are_not_as_they_were_set_aside_are_found(
    tmp_path: Path, spoil: Callable[[Path], object], kind: str
) -> None:
    directory, aside = repaired(tmp_path)
    spoil(aside)

    [finding] = verify([directory], keys=KEYS).findings

    assert (finding.kind, finding.seq) == (kind, 10)
    assert aside.name in finding.detail


def test_a_file_that_was_moved_elsewhere_is_compared_where_its_trail_is(tmp_path: Path) -> None:
    directory, _ = repaired(tmp_path)
    elsewhere = list_segments(directory)[0].rename(tmp_path / "old")

    assert verify([elsewhere, directory], keys=KEYS).findings == ()


def test_several_repairs_are_compared_each_with_its_own_bytes(tmp_path: Path) -> None:
    directory, aside = repaired(tmp_path)
    last = list_segments(directory)[-1]
    last.write_bytes(last.read_bytes() + b"more")
    write_trail(directory, files=1)
    other = directory / f"{last.name}.torn"

    assert verify([directory], keys=KEYS).findings == ()
    other.write_bytes(aside.read_bytes())
    assert [each.kind for each in verify([directory], keys=KEYS).findings] == ["changed"]


def test_what_earlier_versions_put_into_one_file_is_compared_piece_by_piece(
    tmp_path: Path,
) -> None:
    (tmp_path / "audit-0000000000000001-19700101T000000Z.jsonl.torn").write_bytes(b"onetwo")

    def event(seq: int, torn: bytes) -> dict[str, object]:
        return {
            "kind": "repair",
            "seq": seq,
            "torn_bytes": len(torn),
            "torn_sha256": hashlib.sha256(torn).hexdigest(),
            "torn_file": "audit-0000000000000001-19700101T000000Z.jsonl.torn",
        }

    def found(*torn: bytes) -> list[str]:
        events = [event(seq, each) for seq, each in enumerate(torn)]
        checked = CheckedSegment(name="f", size=0, events=list(events))
        return [each.kind for each in compare_aside([checked], places={tmp_path})]

    assert found(b"one", b"two") == []
    assert found(b"one", b"twe") == found(b"one") == ["changed"]
