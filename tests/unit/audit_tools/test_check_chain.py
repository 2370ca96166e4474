from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from icr_proxy.audit.chain import ChainHead, MacKey
from icr_proxy.audit.segments import list_segments
from icr_proxy.audit_tools.check_chain import check_chain
from icr_proxy.audit_tools.check_segment import FINDINGS_MOST, check_segment
from icr_proxy.audit_tools.findings import TrailVerdict, WitnessedRecord
from icr_proxy.redaction import Secret
from tests.support.app_fixture import Clock
from tests.support.audit_fixture import KEY, cut_last_line, read_of, seal, writer_in
from tests.support.audit_trails import KEYS, Files, read_trail, verdict_on, write_trail

NEW_KEY = Secret("n" * 64)


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, ChainHead]:
    directory = tmp_path_factory.mktemp("trail")
    head = write_trail(directory, files=3, records=5)
    return read_trail(directory), head


def kinds(verdict: TrailVerdict) -> list[tuple[str, str]]:
    return [(each.kind, each.file) for each in verdict.findings]


def test_files_are_one_chain(trail: tuple[Files, ChainHead]) -> None:
    files, head = trail

    verdict = verdict_on(files[::-1], head=head)

    assert verdict.findings == ()
    assert (verdict.files, verdict.records) == (3, 15)
    assert verdict.last is not None
    assert verdict.last.seq == head.seq == 15


def test_what_is_done_to_whole_files_is_told(trail: tuple[Files, ChainHead]) -> None:
    (one, two, three), head = trail
    copy = (two[0].replace("T14", "T15"), two[1])

    assert kinds(verdict_on([one, three])) == [("removed", three[0])]
    assert kinds(verdict_on([two, three])) == [("removed", two[0])]
    assert kinds(verdict_on([one, two], head=head)) == [("cut", two[0])]
    assert kinds(verdict_on([one, two, copy, three])) == [("repeated", copy[0])]
    assert kinds(verdict_on([one, (two[0], b""), three])) == [
        ("cut", two[0]),
        ("removed", three[0]),
    ]
    headless = (two[0], two[1].partition(b"\n")[2])
    assert kinds(verdict_on([one, headless, three])) == [("removed", two[0])] * 2
    assert ("reordered", two[0]) in kinds(verdict_on([one, (two[0], three[1]), three]))


def test_the_end_of_a_file_that_another_follows_is_not_cut_unseen(
    trail: tuple[Files, ChainHead],
) -> None:
    (one, two, three), _ = trail
    shorter = (two[0], b"".join(two[1].splitlines(keepends=True)[:-2]))

    assert kinds(verdict_on([one, shorter, three])) == [("removed", three[0])]
    assert kinds(verdict_on([one, two, (three[0], three[1][:-9])])) == [("cut", three[0])]


def test_a_half_written_record_is_fine_while_somebody_writes(
    trail: tuple[Files, ChainHead],
) -> None:
    (one, two, three), _ = trail

    live = [one, two, (three[0], three[1][:-9])]
    new = [one, two, three, (three[0].replace("11-", "16-"), b"")]

    assert verdict_on(live, is_live=True).findings == ()
    assert verdict_on(new, is_live=True).findings == ()
    assert verdict_on(new).findings != ()


def test_old_files_may_be_elsewhere_if_one_says_so(trail: tuple[Files, ChainHead]) -> None:
    files, _ = trail

    assert verdict_on(files[1:], is_partial=True).findings == ()


def test_files_that_were_deleted_as_configured_are_not_missed(tmp_path: Path) -> None:
    clock = Clock(1_790_000_000.0)
    writer = writer_in(tmp_path, now=clock, segment_age=60.0, keep=2)
    for _ in range(4):
        writer.append([read_of(1)], sync=False)
        clock.at += 60
    writer.close()

    verdict = verdict_on(read_trail(tmp_path))

    assert verdict.findings == ()
    assert [event["kind"] for event in verdict.events] == ["pruned", "pruned"]
    assert kinds(verdict_on(read_trail(tmp_path)[1:])) != []


@pytest.mark.parametrize(
    ("seq", "prefix", "kind"),
    [
        pytest.param(15, None, None, id="the head"),
        pytest.param(14, "0" * 12, "changed", id="another record"),
        pytest.param(16, "0" * 12, "cut", id="beyond the end"),
    ],
)
def test_a_trail_is_compared_with_what_a_witness_knows(
    trail: tuple[Files, ChainHead], seq: int, prefix: str | None, kind: str | None
) -> None:
    files, head = trail

    verdict = verdict_on(files, head=ChainHead(seq, prefix or head.hash))

    assert [each.kind for each in verdict.findings] == ([kind] if kind else [])


def test_a_witness_of_what_is_missing_in_the_middle_says_so(trail: tuple[Files, ChainHead]) -> None:
    (one, _, three), head = trail

    verdict = verdict_on([one, three], head=ChainHead(7, head.hash))

    assert [(each.kind, each.seq) for each in verdict.findings] == [("removed", 11), ("removed", 7)]


def test_older_keys_need_not_be_at_hand_because_later_seals_bind_what_they_follow(
    tmp_path: Path,
) -> None:
    old, new = {**KEYS}, {NEW_KEY.fingerprint: NEW_KEY.reveal().encode()}
    write_trail(tmp_path, files=1, records=5, key=None)
    write_trail(tmp_path, files=1, records=5)
    write_trail(tmp_path, files=1, records=5, key=NEW_KEY)
    names = [path.name for path in list_segments(tmp_path)]

    def judged(keys: dict[str, bytes]) -> TrailVerdict:
        checked = [
            check_segment(name, io.BytesIO(data), keys=keys) for name, data in read_trail(tmp_path)
        ]
        return check_chain(checked, keys=keys.keys())

    assert judged(old | new).findings == ()
    assert judged(new).findings == ()
    assert judged(new).unchecked == (names[1],)
    assert judged(old).findings == ()
    assert judged(old).unbound == (names[2],)
    assert judged(new).unbound == ()
    assert judged({}).findings == ()


def test_there_is_a_verdict_on_nothing() -> None:
    verdict = check_chain([], witnesses=[WitnessedRecord(3, "a" * 12, "the log")])

    assert [each.kind for each in verdict.findings] == ["cut"]
    assert verdict.last is None


def test_a_wrong_key_finds_nothing_and_checks_nothing(tmp_path: Path) -> None:
    """Whoever verifies with the key of another trail must not be told that this one is forged."""
    write_trail(tmp_path)
    stranger = {"0123456789ab": b"x" * 64}

    verdict = check_chain(
        [
            check_segment(name, io.BytesIO(data), keys=stranger)
            for name, data in read_trail(tmp_path)
        ],
        keys=stranger.keys(),
    )

    assert verdict.findings == ()
    assert len(verdict.unbound) == 3


def test_records_without_a_seal_behind_sealed_ones_are_found(tmp_path: Path) -> None:
    write_trail(tmp_path, files=1)
    write_trail(tmp_path, files=1, key=None)
    last = list_segments(tmp_path)[-1].name

    verdict = verdict_on(read_trail(tmp_path))

    assert [(each.kind, each.file) for each in verdict.findings] == [("forged", last)]


def test_all_files_of_a_trail_name_it(tmp_path: Path) -> None:
    for _ in range(2):
        write_trail(tmp_path / "one", files=2)
    write_trail(tmp_path / "other", files=2)

    trails = {
        place: {json.loads(data.splitlines()[0])["trail"] for _, data in read_trail(place)}
        for place in (tmp_path / "one", tmp_path / "other")
    }

    assert [len(ids) for ids in trails.values()] == [1, 1]
    assert not set.intersection(*trails.values())
    assert verdict_on(read_trail(tmp_path / "one")).trail in trails[tmp_path / "one"]


def test_a_file_of_another_trail_is_found(tmp_path: Path) -> None:
    write_trail(tmp_path / "one")
    write_trail(tmp_path / "other")
    ours, theirs = read_trail(tmp_path / "one"), read_trail(tmp_path / "other")

    verdict = verdict_on([ours[0], theirs[1], ours[2]])

    [finding] = [each for each in verdict.findings if each.kind == "inserted"]
    assert (finding.file, finding.line) == (theirs[1][0], 1)
    assert "belongs to trail" in finding.detail


@pytest.mark.parametrize("is_ended", [True, False], ids=["ended", "killed"])
def test_two_files_put_together_are_found(tmp_path: Path, is_ended: bool) -> None:  # noqa: FBT001
    """After a crash there is no `end` record between them, and the chain goes on."""
    writer = writer_in(tmp_path)
    writer.append([read_of(1)], sync=True)
    writer.close()
    if not is_ended:
        cut_last_line(list_segments(tmp_path)[0])
    again = writer_in(tmp_path)
    again.append([read_of(2)], sync=True)
    again.close()
    (name, first), (_, second) = read_trail(tmp_path)

    verdict = verdict_on([(name, first + second)])

    assert "begins a file: two were put together in one" in str(verdict.findings)
    assert {each.kind for each in verdict.findings} == {"inserted"}


def without_ids(files: Files) -> Files:
    """Seal a trail anew as a version would have that knew no IDs of trails."""
    made, head = [], ChainHead()
    for name, data in files:
        lines = []
        for line in data.splitlines():
            body = re.sub(rb',"trail":"[0-9a-f]{32}"', b"", line[line.index(b'"kind"') :])
            body = b"{" + body[: body.rindex(b',"hash":"')] + b"}"
            fresh, head = seal(body, after=head, mac_key=MacKey(KEY.reveal().encode()))
            lines.append(fresh + b"\n")
        made.append((name, b"".join(lines)))
    return made


def test_a_trail_of_an_earlier_version_verifies_and_is_continued(tmp_path: Path) -> None:
    write_trail(tmp_path)
    for name, data in without_ids(read_trail(tmp_path)):
        (tmp_path / name).write_bytes(data)
    old = verdict_on(read_trail(tmp_path))

    for _ in range(2):
        write_trail(tmp_path, files=1)
    verdict = verdict_on(read_trail(tmp_path))

    assert (old.findings, old.trail) == ((), None)
    assert verdict.findings == ()
    assert verdict.trail is not None


def test_a_line_that_was_changed_at_the_end_stays_and_is_found_after_a_start(
    tmp_path: Path,
) -> None:
    write_trail(tmp_path, files=1)
    [path] = list_segments(tmp_path)
    data = path.read_bytes().replace(b'"kind":"end"', b'"kind":"enx"')
    path.write_bytes(data)

    write_trail(tmp_path, files=1)
    verdict = verdict_on(read_trail(tmp_path))

    assert path.read_bytes() == data
    assert [(each.kind, each.file) for each in verdict.findings] == [("changed", path.name)]


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
    checked = check_segment("f", io.BytesIO(b"".join(lines)), keys=KEYS)
    return [(each.kind, each.line, each.seq) for each in checked.findings]


def test_a_file_that_nobody_touched_is_whole(lines: list[bytes]) -> None:
    checked = check_segment("f", io.BytesIO(b"".join(lines)), keys=KEYS)

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
    checked = check_segment("f", io.BytesIO(b"".join(lines)[:-10]), keys=KEYS)

    assert checked.torn == len(lines[-1]) - 10
    assert checked.records == 6


def test_with_no_key_hashes_alone_are_checked(lines: list[bytes]) -> None:
    checked = check_segment("f", io.BytesIO(b"".join(lines)), keys={})

    assert (checked.findings, checked.is_checked) == ([], False)
    assert [
        each.kind
        for each in check_segment("f", io.BytesIO(changed(b"".join(lines))), keys={}).findings
    ] == ["changed"] * 5


def test_a_record_without_its_mac_is_forged_even_if_no_key_is_at_hand(
    lines: list[bytes],
) -> None:
    bare = lines[1][: lines[1].index(b',"mac"')] + b"}\n"

    checked = check_segment("f", io.BytesIO(b"".join([lines[0], bare, *lines[2:]])), keys={})

    assert [(each.kind, each.line) for each in checked.findings] == [("forged", 2)]


def test_the_hash_of_a_record_that_is_asked_for_is_told(lines: list[bytes]) -> None:
    checked = check_segment("f", io.BytesIO(b"".join(lines)), keys=KEYS, wanted=frozenset({3, 99}))

    assert list(checked.hashes) == [3]
    assert checked.hashes[3].encode() in lines[2]


def test_a_file_of_another_kind_is_not_told_line_by_line_for_ever() -> None:
    checked = check_segment("f", io.BytesIO(b"x\n" * (FINDINGS_MOST + 5)), keys=KEYS)

    assert len(checked.findings) == FINDINGS_MOST
    assert (checked.first, checked.records) == (None, 0)


@pytest.mark.parametrize("data", [b"", b"[]\n", b"\xff\n"], ids=["empty", "a list", "no text"])
def test_what_is_no_trail_breaks_nothing(data: bytes) -> None:
    checked = check_segment("f", io.BytesIO(data), keys=KEYS)

    assert checked.records == 0
    assert checked.since is None
