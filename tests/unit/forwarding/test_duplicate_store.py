"""The claims on writes: which one may be sent, and when what came before it is forgotten."""

from __future__ import annotations

import random
from itertools import product

import pytest
from msgspec.structs import replace

from icr_proxy.forwarding.duplicate_store import (
    ENTRY_BYTES,
    DuplicateEntry,
    DuplicateStore,
    RejectedDuplicate,
    ReplayedResponse,
    StoredResponse,
    WriteRequest,
    WriteResultFacts,
    classify_result,
)
from icr_proxy.forwarding.response_classification import Effect

WINDOW = 60.0
PLAIN = WriteRequest(
    installation="in-1", caller=None, method="POST", target=b"/v1/retire", body=b"digest"
)
KEYED = replace(PLAIN, key=b"k-1")
ANSWER = StoredResponse(status=200, reason=b"OK", headers=(), body=b"done")

NEVER_SENT = WriteResultFacts(sent=False, fate=Effect.UNKNOWN, delivered=False)
NO_ANSWER = WriteResultFacts(sent=True, fate=Effect.UNKNOWN, delivered=False)
SAID = WriteResultFacts(sent=True, fate=Effect.APPLIED, delivered=True, whole=True, answer=ANSWER)
TOO_LARGE = replace(SAID, answer=None)
UNHEARD = replace(SAID, delivered=False)
BROKEN_OFF = WriteResultFacts(sent=True, fate=Effect.APPLIED, delivered=False)
NOT_NOW = replace(SAID, fate=Effect.NOT_APPLIED)


class Desk:
    """The claims, and a clock."""

    def __init__(self, **bounds: int) -> None:
        self.duplicates = DuplicateStore(**bounds)
        self.now = 1000.0

    def claim(
        self, request: WriteRequest, name: str = "first"
    ) -> DuplicateEntry | RejectedDuplicate | ReplayedResponse:
        return self.duplicates.claim(request, request_id=name, now=self.now, window=WINDOW)

    def take(self, request: WriteRequest, name: str = "first") -> DuplicateEntry:
        entry = self.claim(request, name)
        assert isinstance(entry, DuplicateEntry)
        return entry

    def settle(self, entry: DuplicateEntry, ending: WriteResultFacts) -> bool:
        return self.duplicates.settle(entry, ending, now=self.now, window=WINDOW)

    def expire(self) -> int:
        return self.duplicates.expire(self.now)

    def after(
        self, request: WriteRequest, ending: WriteResultFacts
    ) -> DuplicateEntry | RejectedDuplicate | ReplayedResponse:
        """Make the same request again after one with this ending."""
        self.settle(self.take(request), ending)
        return self.claim(request, "second")


# -- what an ending means -------------------------------------------------------------------------

# sent, fates, delivered, whole (of an answer), with a key -> what it means
YES, NO, ANY = {True}, {False}, {True, False}
ACTED = {Effect.APPLIED}
EVERY = set(Effect)
TABLE: list[tuple[set[bool], set[Effect], set[bool], set[bool], set[bool], str]] = [
    (NO, EVERY, ANY, ANY, ANY, "free"),
    (YES, {Effect.NOT_APPLIED}, ANY, ANY, ANY, "free"),
    (YES, {Effect.UNKNOWN}, ANY, ANY, ANY, "open"),
    (YES, {Effect.APPLIED, Effect.REJECTED}, ANY, YES, YES, "keep"),
    (YES, {Effect.REJECTED}, ANY, ANY, NO, "free"),
    (YES, {Effect.REJECTED}, ANY, NO, YES, "free"),
    (YES, ACTED, YES, ANY, NO, "free"),
    (YES, ACTED, YES, NO, YES, "free"),
    (YES, ACTED, NO, ANY, NO, "open"),
    (YES, ACTED, NO, NO, YES, "open"),
]


ROWS = list(product([True, False], Effect, *([[True, False]] * 3)))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_an_ending_means(row: tuple[bool, Effect, bool, bool, bool]) -> None:
    sent, fate, delivered, whole, keyed = row
    meanings = [
        meaning
        for s, f, d, w, k, meaning in TABLE
        if sent in s and fate in f and delivered in d and whole in w and keyed in k
    ]

    ending = WriteResultFacts(sent=sent, fate=fate, delivered=delivered, whole=whole)

    assert [classify_result(ending, keyed=keyed)] == meanings


# -- without a key --------------------------------------------------------------------------------


def test_an_equal_write_is_refused_while_the_first_is_under_way() -> None:
    desk = Desk()
    desk.take(PLAIN)

    desk.now += 10 * WINDOW

    assert desk.claim(PLAIN, "second") == RejectedDuplicate("in-flight", "first", WINDOW)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(PLAIN, installation="in-2"), id="installation"),
        pytest.param(replace(PLAIN, installation=None), id="the app's own"),
        pytest.param(replace(PLAIN, installation=""), id="empty is not none"),
        pytest.param(replace(PLAIN, caller="tool"), id="caller"),
        pytest.param(replace(PLAIN, method="PUT"), id="method"),
        pytest.param(replace(PLAIN, target=b"/v1/retire?"), id="target, to the byte"),
        pytest.param(replace(PLAIN, target=b"/v1/Retire"), id="target, case"),
        pytest.param(replace(PLAIN, body=b"other"), id="body"),
        pytest.param(KEYED, id="key"),
        pytest.param(replace(PLAIN, method="POS", target=b"T/v1/retire"), id="a shifted border"),
    ],
)
def test_what_differs_is_another_write(other: WriteRequest) -> None:
    desk = Desk()
    desk.take(PLAIN)

    assert isinstance(desk.claim(other, "second"), DuplicateEntry)


def test_of_an_unknown_outcome_the_window_begins_when_it_became_so() -> None:
    desk = Desk()
    entry = desk.take(PLAIN)
    desk.now += 1000
    assert desk.settle(entry, NO_ANSWER)

    desk.now += 20

    assert desk.claim(PLAIN, "second") == RejectedDuplicate("unknown", "first", 40)


def test_when_the_window_has_passed_it_may_be_sent_again() -> None:
    desk = Desk()
    desk.settle(desk.take(PLAIN), NO_ANSWER)
    desk.now += WINDOW

    again = desk.take(PLAIN, "second")

    assert again.first == "second"
    assert len(desk.duplicates) == 1
    assert desk.claim(PLAIN, "third") == RejectedDuplicate("in-flight", "second", WINDOW)


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(NEVER_SENT, id="never sent"),
        pytest.param(SAID, id="answered"),
        pytest.param(NOT_NOW, id="turned away"),
        pytest.param(replace(BROKEN_OFF, fate=Effect.REJECTED), id="refused, half heard"),
    ],
)
def test_a_known_outcome_frees_at_once(ending: WriteResultFacts) -> None:
    desk = Desk()

    assert isinstance(desk.after(PLAIN, ending), DuplicateEntry)


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(NO_ANSWER, id="no answer"),
        pytest.param(BROKEN_OFF, id="half an answer"),
        pytest.param(UNHEARD, id="an answer nobody took"),
    ],
)
def test_what_the_caller_cannot_know_stays_open(ending: WriteResultFacts) -> None:
    desk = Desk()

    assert desk.after(PLAIN, ending) == RejectedDuplicate("unknown", "first", WINDOW)


# -- with a key -----------------------------------------------------------------------------------


def test_with_a_key_the_answer_is_given_again() -> None:
    desk = Desk()

    assert desk.after(KEYED, SAID) == ReplayedResponse("first", ANSWER)


def test_with_a_key_an_answer_that_nobody_took_is_given_again() -> None:
    desk = Desk()

    assert desk.after(KEYED, UNHEARD) == ReplayedResponse("first", ANSWER)


def test_with_a_key_an_answer_too_large_to_keep_is_not_asked_for_again() -> None:
    desk = Desk()

    assert desk.after(KEYED, TOO_LARGE) == RejectedDuplicate("answered", "first", WINDOW)


@pytest.mark.parametrize("ending", [NO_ANSWER, BROKEN_OFF], ids=["no answer", "half an answer"])
def test_with_a_key_an_unknown_outcome_is_refused(ending: WriteResultFacts) -> None:
    desk = Desk()

    assert desk.after(KEYED, ending) == RejectedDuplicate("unknown", "first", WINDOW)


@pytest.mark.parametrize("ending", [NEVER_SENT, NOT_NOW], ids=["never sent", "turned away"])
def test_with_a_key_what_was_not_done_may_be_sent_again(ending: WriteResultFacts) -> None:
    desk = Desk()

    assert isinstance(desk.after(KEYED, ending), DuplicateEntry)


@pytest.mark.parametrize("ending", [None, NO_ANSWER, SAID], ids=["under way", "unknown", "kept"])
def test_a_key_with_another_body_is_refused(ending: WriteResultFacts | None) -> None:
    desk = Desk()
    entry = desk.take(KEYED)
    if ending is not None:
        desk.settle(entry, ending)

    verdict = desk.claim(replace(KEYED, body=b"other"), "second")

    assert verdict == RejectedDuplicate("key-reused", "first", WINDOW)


@pytest.mark.parametrize(
    "other",
    [replace(KEYED, installation="in-2"), replace(KEYED, caller="tool"), replace(KEYED, key=b"k")],
    ids=["installation", "caller", "key"],
)
def test_an_answer_is_never_given_to_somebody_else(other: WriteRequest) -> None:
    desk = Desk()
    desk.settle(desk.take(KEYED), SAID)

    assert isinstance(desk.claim(other, "second"), DuplicateEntry)


def test_a_kept_answer_is_forgotten_with_its_window() -> None:
    desk = Desk()
    desk.settle(desk.take(KEYED), SAID)
    assert desk.duplicates.kept > 0
    desk.now += WINDOW

    assert desk.expire() == 0  # of this one, it was known what became of it

    assert (len(desk.duplicates), desk.duplicates.kept) == (0, 0)
    assert isinstance(desk.claim(KEYED, "second"), DuplicateEntry)


# -- bounds ---------------------------------------------------------------------------------------


def numbered(number: int, *, installation: str = "in-1", keyed: bool = False) -> WriteRequest:
    key = b"%d" % number if keyed else None
    return replace(PLAIN, installation=installation, body=b"%d" % number, key=key)


def test_an_installation_that_has_used_its_share_is_refused_and_nothing_is_forgotten() -> None:
    desk = Desk(share=3)
    for number in range(3):
        desk.settle(desk.take(numbered(number)), NO_ANSWER)

    assert desk.claim(numbered(3)) == RejectedDuplicate("full", None, WINDOW)
    assert desk.claim(numbered(0)) == RejectedDuplicate("unknown", "first", WINDOW)
    assert isinstance(desk.claim(numbered(3, installation="in-2")), DuplicateEntry)


def test_the_process_as_a_whole_has_a_bound() -> None:
    desk = Desk(entries=2)
    desk.take(numbered(0, installation="in-1"))
    desk.take(numbered(0, installation="in-2"))

    assert desk.claim(numbered(0, installation="in-3")) == RejectedDuplicate("full", None, WINDOW)


def test_what_ends_makes_room() -> None:
    desk = Desk(entries=1, share=1)
    desk.settle(desk.take(numbered(0)), SAID)
    desk.settle(desk.take(numbered(1)), NO_ANSWER)
    desk.now += WINDOW

    assert desk.expire() == 1

    assert isinstance(desk.claim(numbered(2)), DuplicateEntry)


def test_an_answer_for_which_there_is_no_room_is_not_kept_and_not_asked_for_again() -> None:
    cost = ENTRY_BYTES + len(ANSWER.body)
    desk = Desk(answers=2 * cost, answers_share=cost)
    for number in range(2):
        desk.settle(desk.take(numbered(number, keyed=True)), SAID)
    for name in ("in-2", "in-3"):
        desk.settle(desk.take(numbered(0, installation=name, keyed=True)), SAID)

    verdicts = [
        desk.claim(numbered(0, keyed=True), "x"),
        desk.claim(numbered(1, keyed=True), "x"),
        desk.claim(numbered(0, installation="in-2", keyed=True), "x"),
        desk.claim(numbered(0, installation="in-3", keyed=True), "x"),
    ]

    kept, refused = (
        ReplayedResponse("first", ANSWER),
        RejectedDuplicate("answered", "first", WINDOW),
    )
    assert verdicts == [kept, refused, kept, refused]
    assert desk.duplicates.kept == 2 * cost


def test_the_headers_of_an_answer_count_as_well() -> None:
    headers = ((b"X", b"y" * ENTRY_BYTES),)
    desk = Desk(answers_share=2 * ENTRY_BYTES)

    assert isinstance(
        desk.after(KEYED, replace(SAID, answer=replace(ANSWER, headers=headers))), RejectedDuplicate
    )


def test_after_a_shorter_window_was_set_what_is_late_still_counts_as_over() -> None:
    desk = Desk()
    desk.settle(desk.take(numbered(0)), NO_ANSWER)
    late = desk.take(numbered(1))
    desk.duplicates.settle(late, NO_ANSWER, now=desk.now, window=1.0)
    desk.now += 2

    assert desk.expire() == 0
    assert isinstance(desk.claim(numbered(1), "second"), DuplicateEntry)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_nothing_is_sent_that_may_have_been_done_within_the_window(
    seed: int,
) -> None:
    """A model that keeps everything decides with the bounded memory, or is stricter by nobody."""
    chance = random.Random(seed)
    desk = Desk(entries=40, share=15)
    open_until: dict[WriteRequest, float] = {}
    going: dict[WriteRequest, DuplicateEntry] = {}
    for step in range(3000):
        desk.now += chance.random()
        if going and chance.random() < 0.5:
            request = chance.choice(list(going))
            ending = chance.choice((NEVER_SENT, NO_ANSWER, SAID, BROKEN_OFF, NOT_NOW))
            if desk.settle(going.pop(request), ending):
                open_until[request] = desk.now + WINDOW
            continue
        request = numbered(chance.randrange(12), installation=f"in-{chance.randrange(4)}")
        if chance.random() < 0.3:
            desk.expire()
        verdict = desk.claim(request, str(step))
        closed = request in going or open_until.get(request, 0) > desk.now
        assert isinstance(verdict, RejectedDuplicate) >= closed
        if isinstance(verdict, DuplicateEntry):
            going[request] = verdict
    desk.now += WINDOW
    desk.expire()
    assert len(desk.duplicates) == len(going)
