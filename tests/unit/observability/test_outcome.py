import re
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.observability.outcome import (
    DIGITS,
    DRAWN,
    PATH_LIMIT,
    Announcement,
    Journal,
    Outcome,
    RandomDigits,
    Trace,
    printable,
)

TRACE = Trace(id="trace", parent=None, span="s", upstream_span="u", flags="00", sampled=False)


def journal(path: str = "/projects") -> Journal:
    return Journal(
        request_id="request",
        trace=TRACE,
        listener="127.0.0.1:8080",
        peer="127.0.0.1",
        method="GET",
        path=path,
        started_at=1_700_000_000.0,
        began=10.0,
    )


def test_closing_keeps_what_was_learnt() -> None:
    learnt: dict[str, object] = {
        "operation": "v1.retire",
        "changes_state": True,
        "caller": "reporting",
        "installation": "in-1",
        "would_refuse": "rule",
        "duplicate_of": "first",
        "token": "0123456789ab",
        "token_generation": 4,
        "attempts": 2,
        "status": 201,
        "origin": "upstream",
        "code": "upstream-broken",
        "bytes_in": 11,
        "bytes_out": 22,
        "token_wait": 0.5,
        "first_byte": 0.25,
        "sent_at": 10.25,
        "reserved_records": 1,
        "target": "/v1/retire?a",
        "intent": Announcement(4),
        "rule": "default",
        "organization": "org-1",
        "digest_in": "in",
        "digest_out": "out",
        "header_edits": ("-x-tag", "+via"),
        "upstream_request_id": "theirs",
    }
    story = journal()
    for name, value in learnt.items():
        setattr(story, name, value)

    outcome = story.close(at=12.5)

    assert msgspec.structs.asdict(outcome) == learnt | {
        "request_id": "request",
        "trace": TRACE,
        "sent_after": 0.25,
        "listener": "127.0.0.1:8080",
        "peer": "127.0.0.1",
        "method": "GET",
        "path": "/projects",
        "started_at": 1_700_000_000.0,
        "began": 10.0,
        "duration": 2.5,
    }


def test_a_request_nobody_understood_counts_as_changing_state() -> None:
    outcome = journal().close(at=10.0)

    assert (outcome.operation, outcome.changes_state) == ("unknown", True)


def test_what_was_not_sent_was_sent_after_no_time() -> None:
    assert journal().close(at=10.0).sent_after is None


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(Journal)])
def test_an_outcome_is_never_changed(name: str) -> None:
    outcome = journal().close(at=10.0)

    with pytest.raises(AttributeError):
        setattr(outcome, name, None)


def test_whoever_still_holds_the_journal_cannot_change_the_outcome() -> None:
    """What several readers read, and one of them in another thread, must not change."""
    story = journal()
    outcome = story.close(at=10.0)

    story.status = 200

    assert isinstance(outcome, Outcome)
    assert outcome.status == 0


def test_a_journal_is_closed_once() -> None:
    outcome = journal().close(at=10.0)

    with pytest.raises(AttributeError):
        outcome.close(at=11.0)

    assert outcome.duration == 0.0


def test_closing_one_journal_closes_no_other() -> None:
    other = journal()
    journal().close(at=10.0)

    other.status = 200

    assert other.status == 200


def test_a_long_path_is_cut() -> None:
    outcome = journal("/" + "x" * 10_000).close(at=10.0)

    assert len(outcome.path) == PATH_LIMIT


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        pytest.param("/projects/1?", "/projects/1?", id="plain"),
        pytest.param("/a%0Ab", "/a%0Ab", id="an escape stays as it is"),
        pytest.param("/a\nb", r"/a\x0ab", id="line feed (a second log line)"),
        pytest.param("/\x1b[2J", r"/\x1b[2J", id="escape (a terminal obeys)"),
        pytest.param("/\x7f", r"/\x7f", id="delete"),
        pytest.param("/é", r"/\xc3\xa9", id="UTF-8 as the bytes on the wire"),
        pytest.param("/\udce9", r"/\xe9", id="not UTF-8"),
        pytest.param("/\ud800", r"/\xed\xa0\x80", id="half a character"),
    ],
)
def test_what_is_not_plain_text_shows_as_an_escape(path: str, shown: str) -> None:
    assert printable(path) == shown


@given(path=st.text(alphabet=st.characters(exclude_categories=())))
def test_any_path_becomes_printable_ascii(path: str) -> None:
    shown = printable(path)

    assert shown.isascii()
    assert shown.isprintable()


AT_A_TIME = DRAWN * 2 // DIGITS


def test_they_are_as_many_hexadecimal_digits_as_a_trace_needs() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", RandomDigits()())


def test_nobody_gets_the_digits_of_another() -> None:
    many, fresh_digits = 3 * AT_A_TIME, RandomDigits()

    assert len({fresh_digits() for _ in range(many)}) == many


def test_no_digits_are_in_two_places() -> None:
    """Halves are ids of their own: a draw that is cut at the wrong places repeats them."""
    fresh_digits = RandomDigits()

    drawn = "".join(fresh_digits() for _ in range(AT_A_TIME))
    halves = [drawn[at : at + 32] for at in range(0, len(drawn), 32)]

    assert len(set(halves)) == 2 * AT_A_TIME


FORK = """
import os
from icr_proxy.observability.outcome import RandomDigits
fresh_digits = RandomDigits()
fresh_digits()
child = os.fork() == 0
# In one write: an unbuffered print writes word by word, and the two processes' words would mix.
os.write(1, b"".join(fresh_digits().encode() + b"\\n" for _ in range(3)))
if not child:
    os.wait()
"""


def test_after_a_fork_parent_and_child_go_apart() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], check=True, capture_output=True, text=True)

    assert len(set(done.stdout.split())) == 6
