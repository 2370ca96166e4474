from __future__ import annotations

from dataclasses import replace

import pytest

from icr_proxy.audit.chain import Link
from icr_proxy.audit_tools.checks import Finding, Verdict, Witnessed
from icr_proxy.audit_tools.verification import MOST_SHOWN, as_json, exit_code, tell

VERDICT = Verdict(
    files=1,
    records=1200,
    size=5,
    last=Link(1200, "0" * 64, "end", "ab" * 32, sealed=True),
    since="then",
    until="now",
    keys=("k1",),
    unchecked=(),
    unbound=(),
    trail=None,
    findings=(),
    events=({"kind": "gap", "seq": 9, "time": "t", "lost": 3},),
    witnesses=(Witnessed(7, "a" * 12, "the log"),),
)
FOUND = Finding("changed", "audit-1", 17, 1203, "does not have the hash that it says")


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
    verdict: Verdict,
    chain_only: bool,  # noqa: FBT001
    code: int,
    word: str,
) -> None:
    *_, last = tell(verdict, chain_only=chain_only)

    assert exit_code(verdict, chain_only=chain_only) == code
    assert last.startswith(word)


def test_a_finding_is_told_with_its_place() -> None:
    lines = list(tell(replace(VERDICT, findings=(FOUND,)), chain_only=False))

    assert lines[-2] == ("changed   audit-1:17 (record 1203): does not have the hash that it says")
    assert str(replace(FOUND, line=None, seq=None)).startswith("changed   audit-1: ")


def test_what_was_compared_and_what_is_recorded_is_told() -> None:
    text = "\n".join(tell(VERDICT, chain_only=False))

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
def test_what_a_verdict_rests_on_is_said(verdict: Verdict, said: str) -> None:
    assert said in "\n".join(tell(verdict, chain_only=False))


def test_of_many_findings_some_are_shown() -> None:
    lines = list(tell(replace(VERDICT, findings=(FOUND,) * 25), chain_only=False))

    assert lines.count(str(FOUND)) == MOST_SHOWN
    assert lines[-2:] == ["… and 5 more", "TAMPERED: 25 findings."]


def test_a_machine_is_told_the_same() -> None:
    told = as_json(replace(VERDICT, findings=(FOUND,)), chain_only=False)

    assert told["result"] == "tampered"
    assert told["head"] == {"seq": 1200, "hash": "ab" * 32}
    assert told["findings"][0]["line"] == 17
    assert told["witnesses"][0]["source"] == "the log"
    assert as_json(replace(VERDICT, last=None), chain_only=False)["head"] is None
