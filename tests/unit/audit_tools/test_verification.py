from __future__ import annotations

import os
from pathlib import Path

import pytest

from icr_proxy.audit.segments import claim, list_segments
from icr_proxy.audit_tools import verification
from icr_proxy.audit_tools.checks import Witnessed
from icr_proxy.audit_tools.verification import (
    UncheckableError,
    find_files,
    read_anchor,
    read_keys,
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
        witnesses=[Witnessed(head.seq, head.hash, "the log")],
        done=heard.append,
    )

    assert verdict.findings == ()
    assert verdict.records == head.seq
    assert sum(heard) == verdict.size
    assert len(heard) == 3


def test_many_files_are_looked_at_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "WORTH_PROCESSES", 1)
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
    lock = claim(tmp_path)
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
