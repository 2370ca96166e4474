from __future__ import annotations

from pathlib import Path

import pytest

from proxy.auditchain import Head
from proxy.auditfiles import list_segments
from proxy.auditor.examining import examine
from proxy.auditor.findings import Verdict, Witnessed
from proxy.auditor.linking import judge
from proxy.secret import Secret
from tests.auditor.trails import KEYS, Files, read_trail, verdict_on, write_trail
from tests.auditscenes import read_of, writer_in
from tests.scenes import Clock

NEW_KEY = Secret("n" * 64)


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Head]:
    directory = tmp_path_factory.mktemp("trail")
    head = write_trail(directory, files=3, records=5)
    return read_trail(directory), head


def kinds(verdict: Verdict) -> list[tuple[str, str]]:
    return [(each.kind, each.file) for each in verdict.findings]


def test_files_are_one_chain(trail: tuple[Files, Head]) -> None:
    files, head = trail

    verdict = verdict_on(files[::-1], head=head)

    assert verdict.findings == ()
    assert (verdict.files, verdict.records) == (3, 15)
    assert verdict.last is not None
    assert verdict.last.seq == head.seq == 15


def test_what_is_done_to_whole_files_is_told(trail: tuple[Files, Head]) -> None:
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
    trail: tuple[Files, Head],
) -> None:
    (one, two, three), _ = trail
    shorter = (two[0], b"".join(two[1].splitlines(keepends=True)[:-2]))

    assert kinds(verdict_on([one, shorter, three])) == [("removed", three[0])]
    assert kinds(verdict_on([one, two, (three[0], three[1][:-9])])) == [("cut", three[0])]


def test_a_half_written_record_is_fine_while_somebody_writes(trail: tuple[Files, Head]) -> None:
    (one, two, three), _ = trail

    live = [one, two, (three[0], three[1][:-9])]
    new = [one, two, three, (three[0].replace("11-", "16-"), b"")]

    assert verdict_on(live, is_live=True).findings == ()
    assert verdict_on(new, is_live=True).findings == ()
    assert verdict_on(new).findings != ()


def test_old_files_may_be_elsewhere_if_one_says_so(trail: tuple[Files, Head]) -> None:
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
    trail: tuple[Files, Head], seq: int, prefix: str | None, kind: str | None
) -> None:
    files, head = trail

    verdict = verdict_on(files, head=Head(seq, prefix or head.hash))

    assert [each.kind for each in verdict.findings] == ([kind] if kind else [])


def test_a_witness_of_what_is_missing_in_the_middle_says_so(trail: tuple[Files, Head]) -> None:
    (one, _, three), head = trail

    verdict = verdict_on([one, three], head=Head(7, head.hash))

    assert [(each.kind, each.seq) for each in verdict.findings] == [("removed", 11), ("removed", 7)]


def test_older_keys_need_not_be_at_hand_because_later_seals_bind_what_they_follow(
    tmp_path: Path,
) -> None:
    old, new = {**KEYS}, {NEW_KEY.fingerprint: NEW_KEY.reveal().encode()}
    write_trail(tmp_path, files=1, records=5, key=None)
    write_trail(tmp_path, files=1, records=5)
    write_trail(tmp_path, files=1, records=5, key=NEW_KEY)
    names = [path.name for path in list_segments(tmp_path)]

    def judged(keys: dict[str, bytes]) -> Verdict:
        checked = [examine(name, data, keys=keys) for name, data in read_trail(tmp_path)]
        return judge(checked, keys=keys.keys())

    assert judged(old | new).findings == ()
    assert judged(new).findings == ()
    assert judged(new).unchecked == (names[1],)
    assert [(each.kind, each.file) for each in judged(old).findings] == [("forged", names[2])]
    assert judged({}).findings == ()


def test_there_is_a_verdict_on_nothing() -> None:
    verdict = judge([], witnesses=[Witnessed(3, "a" * 12, "the log")])

    assert [each.kind for each in verdict.findings] == ["cut"]
    assert verdict.last is None
