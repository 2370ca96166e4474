from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from icr_proxy.audit.chain import ChainLink
from icr_proxy.audit.segments import claim_directory, list_segments
from icr_proxy.audit_tools import verification
from icr_proxy.audit_tools.findings import TrailFinding, TrailVerdict, WitnessedRecord
from icr_proxy.audit_tools.verification import (
    FINDINGS_SHOWN,
    UncheckableError,
    as_json,
    exit_code,
    find_files,
    read_anchor,
    read_keys,
    report_verdict,
    verify,
)
from tests.support.audit_fixture import KEY
from tests.support.audit_trails import KEYS, write_trail


def test_a_directory_of_files_is_verified(tmp_path: Path) -> None:
    head = write_trail(tmp_path)
    heard: list[int] = []

    verdict = verify(
        [tmp_path],
        keys=KEYS,
        witnesses=[WitnessedRecord(head.seq, head.hash, "the log")],
        on_progress=heard.append,
    )

    assert verdict.findings == ()
    assert verdict.records == head.seq
    assert sum(heard) == verdict.size
    assert len(heard) == 3


def test_many_files_are_looked_at_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "PARALLEL_LEAST", 1)
    head = write_trail(tmp_path)
    path = list_segments(tmp_path)[1]
    path.write_bytes(path.read_bytes().replace(b"projects", b"Projects", 1))

    verdict = verify([tmp_path], keys=KEYS)

    assert [(each.kind, each.file) for each in verdict.findings] == [("changed", path.name)]
    assert verdict.last is not None
    assert verdict.last.seq == head.seq


def test_while_somebody_writes_the_last_record_may_be_half_there(tmp_path: Path) -> None:
    write_trail(tmp_path)
    path = list_segments(tmp_path)[-1]
    path.write_bytes(path.read_bytes()[:-9])

    torn = [each.kind for each in verify([tmp_path], keys=KEYS).findings]
    lock = claim_directory(tmp_path)
    live = verify([tmp_path], keys=KEYS).findings
    os.close(lock)

    assert (torn, live) == (["cut"], ())


def test_files_may_be_given_by_name_wherever_they_are(tmp_path: Path) -> None:
    write_trail(tmp_path / "trail")
    elsewhere = list_segments(tmp_path / "trail")[0].rename(tmp_path / "old")

    assert verify([tmp_path / "trail"], keys=KEYS).findings != ()
    assert verify([tmp_path / "trail", elsewhere], keys=KEYS).findings == ()


def test_nothing_to_verify_is_said(tmp_path: Path) -> None:
    with pytest.raises(UncheckableError, match="there is no audit trail in"):
        find_files([tmp_path])


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UncheckableError, match="cannot be read: No such file"):
        verify([tmp_path / "gone"], keys=KEYS)


def test_keys_are_known_by_their_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY.reveal() + "\n")

    assert read_keys([tmp_path / "key"]) == KEYS
    with pytest.raises(UncheckableError, match=r"--key-file: .*cannot be read"):
        read_keys([tmp_path / "gone"])


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "cannot be read"), ("x", "not an anchor"), ("[]", "not an anchor"), ("{}", "not an")],
)
def test_an_anchor_that_knows_nothing_is_said(tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "anchor").write_text(text)

    with pytest.raises(UncheckableError, match=why):
        read_anchor(tmp_path / "anchor")


VERDICT = TrailVerdict(
    files=1,
    records=1200,
    size=5,
    last=ChainLink(1200, "0" * 64, "end", "ab" * 32, sealed=True),
    since="then",
    until="now",
    keys=("k1",),
    unchecked=(),
    unbound=(),
    trail=None,
    findings=(),
    events=({"kind": "gap", "seq": 9, "time": "t", "lost": 3},),
    witnesses=(WitnessedRecord(7, "a" * 12, "the log"),),
)
FOUND = TrailFinding("changed", "audit-1", 17, 1203, "does not have the hash that it says")


@pytest.mark.parametrize(
    ("verdict", "chain_only", "code", "word"),
    [
        pytest.param(VERDICT, False, 0, "CLEAN", id="clean"),
        pytest.param(replace(VERDICT, findings=(FOUND,)), True, 2, "TAMPERED", id="tampered"),
        pytest.param(
            replace(VERDICT, keys=(), unchecked=("f",), unbound=("f",)),
            False,
            1,
            "NOT CHECKED",
            id="no key",
        ),
        pytest.param(
            replace(VERDICT, keys=(), unchecked=("f",), unbound=("f",)),
            True,
            0,
            "CLEAN",
            id="hashes will do",
        ),
        pytest.param(replace(VERDICT, keys=()), False, 0, "CLEAN", id="no MACs at all"),
    ],
)
def test_a_verdict_ends_with_a_word_and_a_code(
    verdict: TrailVerdict,
    chain_only: bool,  # noqa: FBT001
    code: int,
    word: str,
) -> None:
    *_, last = report_verdict(verdict, chain_only=chain_only)

    assert exit_code(verdict, chain_only=chain_only) == code
    assert last.startswith(word)


def test_a_finding_is_told_with_its_place() -> None:
    lines = list(report_verdict(replace(VERDICT, findings=(FOUND,)), chain_only=False))

    assert lines[-2] == ("changed   audit-1:17 (record 1203): does not have the hash that it says")
    assert str(replace(FOUND, line=None, seq=None)).startswith("changed   audit-1: ")


def test_what_was_compared_and_what_is_recorded_is_told() -> None:
    text = "\n".join(report_verdict(VERDICT, chain_only=False))

    assert "1 file, 1,200 records, then to now, newest 1200:abababababab" in text
    assert "Compared with record 7, as the log knows it." in text
    assert "Recorded in the trail: gap (record 9, t): lost 3" in text


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (VERDICT, "MACs checked with key k1."),
        (replace(VERDICT, unchecked=("f",)), "of 1 older file only that the later ones follow"),
        (replace(VERDICT, keys=(), unchecked=("f",), unbound=("f",)), "the key was not given"),
        (replace(VERDICT, keys=()), "There are no MACs"),
        (replace(VERDICT, witnesses=()), "No head was given"),
        (replace(VERDICT, last=None), "no record"),
    ],
)
def test_what_a_verdict_rests_on_is_said(verdict: TrailVerdict, said: str) -> None:
    assert said in "\n".join(report_verdict(verdict, chain_only=False))


def test_of_many_findings_some_are_shown() -> None:
    lines = list(report_verdict(replace(VERDICT, findings=(FOUND,) * 25), chain_only=False))

    assert lines.count(str(FOUND)) == FINDINGS_SHOWN
    assert lines[-2:] == ["… and 5 more", "TAMPERED: 25 findings."]


def test_a_machine_is_told_the_same() -> None:
    told = as_json(replace(VERDICT, findings=(FOUND,)), chain_only=False)

    assert told["result"] == "tampered"
    assert told["head"] == {"seq": 1200, "hash": "ab" * 32}
    assert told["findings"][0]["line"] == 17
    assert told["witnesses"][0]["source"] == "the log"
    assert as_json(replace(VERDICT, last=None), chain_only=False)["head"] is None
