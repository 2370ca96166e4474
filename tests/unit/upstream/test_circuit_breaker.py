"""When the API is left alone, and what brings it back."""

from __future__ import annotations

import pytest

from icr_proxy.errors import CircuitOpenError
from icr_proxy.upstream.circuit_breaker import (
    GROWTH_MOST,
    HEAVY_SHARE,
    JITTER_SHARE,
    CircuitBreaker,
)

NOW = 1000.0
PAUSE = 5.0


class Stage:
    """A circuit, and the states it has come to."""

    def __init__(self, *, failures: int = 3, chance: float = 0.0) -> None:
        self.moves: list[str] = []
        self.circuit = CircuitBreaker(
            failures=failures,
            pause=PAUSE,
            random=lambda: chance,
            moved=lambda circuit: self.moves.append(circuit.state),
        )

    def fail(self, times: int = 1, *, at: float = NOW, is_late: bool = False) -> None:
        for _ in range(times):
            number = self.circuit.allow_request(now=at, is_light=True)
            self.circuit.failed(number, now=at, is_late=is_late)

    def wait(self, *, at: float, is_light: bool = True) -> float | None:
        """Give for how long a request is told to wait."""
        with pytest.raises(CircuitOpenError) as caught:
            self.circuit.allow_request(now=at, is_light=is_light)
        return caught.value.retry_after


@pytest.fixture
def on() -> Stage:
    return Stage()


# -- opening --------------------------------------------------------------------------------------


def test_failures_in_a_row_open_it(on: Stage) -> None:
    on.fail(2)
    assert on.circuit.state == "closed"

    on.fail()

    assert on.moves == ["open"]
    assert on.wait(at=NOW) == PAUSE


def test_an_answer_ends_a_run_of_failures(on: Stage) -> None:
    on.fail(2)
    on.circuit.answered()
    on.fail(2)

    assert on.moves == []


def test_a_request_of_which_nothing_was_learnt_changes_nothing(on: Stage) -> None:
    on.fail(2)
    on.circuit.left(on.circuit.allow_request(now=NOW, is_light=True), now=NOW)
    assert on.moves == []

    on.fail()

    assert on.moves == ["open"]


def test_a_single_late_answer_opens_nothing_but_a_second_one_does() -> None:
    on = Stage(failures=1)
    on.fail(is_late=True)
    assert on.moves == []

    on.fail(is_late=True)

    assert on.moves == ["open"]


def test_failures_of_requests_from_before_the_opening_do_not_prolong_it(on: Stage) -> None:
    old = [on.circuit.allow_request(now=NOW, is_light=True) for _ in range(5)]
    on.fail(3)
    for number in old:
        on.circuit.failed(number, now=NOW + 4)

    assert on.wait(at=NOW + 4) == pytest.approx(1.0)
    assert on.moves == ["open"]


def test_an_answer_that_comes_while_it_is_open_closes_it(on: Stage) -> None:
    """To a request that was sent before: the API has just shown that it is there."""
    on.fail(3)

    on.circuit.answered()

    assert on.moves == ["open", "closed"]
    on.circuit.allow_request(now=NOW, is_light=False)


# -- probing --------------------------------------------------------------------------------------


def test_exactly_one_probe_passes_after_the_pause(on: Stage) -> None:
    on.fail(3)
    on.circuit.allow_request(now=NOW + PAUSE, is_light=True)

    assert on.moves == ["open", "half_open"]
    assert on.wait(at=NOW + PAUSE) is None, "how long the probe takes is not known"
    assert on.wait(at=NOW + PAUSE + 30) is None


def test_a_probe_that_is_answered_closes_it(on: Stage) -> None:
    on.fail(3)
    on.circuit.allow_request(now=NOW + PAUSE, is_light=True)
    on.circuit.answered()

    assert on.moves == ["open", "half_open", "closed"]
    on.fail(2)
    assert on.circuit.state == "closed", "the old run is over"


def test_a_probe_that_fails_opens_it_at_once(on: Stage) -> None:
    on.fail(3)
    on.fail(at=NOW + PAUSE)

    assert on.moves == ["open", "half_open", "open"]
    assert on.wait(at=NOW + PAUSE) == 2 * PAUSE


def test_a_probe_of_which_nothing_was_learnt_makes_room_for_the_next(on: Stage) -> None:
    on.fail(3)
    at = NOW + PAUSE
    on.circuit.left(on.circuit.allow_request(now=at, is_light=True), now=at)

    on.circuit.allow_request(now=at, is_light=True)

    assert on.moves == ["open", "half_open"]
    assert on.wait(at=at) is None


def test_who_leaves_after_the_state_has_changed_changes_nothing(on: Stage) -> None:
    old = on.circuit.allow_request(now=NOW, is_light=True)
    on.fail(3)

    on.circuit.left(old, now=NOW)

    assert on.wait(at=NOW) == PAUSE


def test_a_probe_that_hangs_does_not_shut_everybody_out_for_ever(on: Stage) -> None:
    on.fail(3)
    hanging = on.circuit.allow_request(now=NOW + PAUSE, is_light=True)
    second = on.circuit.allow_request(now=NOW + PAUSE + GROWTH_MOST * PAUSE, is_light=True)

    on.circuit.failed(hanging, now=NOW + 60)
    assert on.moves[-1] == "half_open", "the second is the probe now"
    on.circuit.failed(second, now=NOW + 60)
    assert on.moves[-1] == "open"


def test_what_is_heavy_probes_only_if_nothing_light_comes(on: Stage) -> None:
    on.fail(3)

    assert on.wait(at=NOW + PAUSE, is_light=False) == pytest.approx(HEAVY_SHARE * PAUSE)
    on.circuit.allow_request(now=NOW + PAUSE * (1 + HEAVY_SHARE), is_light=False)
    assert on.circuit.state == "half_open"


# -- pauses ---------------------------------------------------------------------------------------


def test_pauses_grow_up_to_a_maximum_and_begin_anew_after_an_answer(on: Stage) -> None:
    at, pauses = NOW, []
    on.fail(3)
    for _ in range(6):
        pauses.append(on.circuit.pause)
        at += on.circuit.pause
        on.fail(at=at)
    on.circuit.answered()
    on.fail(3, at=at)

    assert pauses == [5, 10, 20, 40, 40, 40]
    assert on.circuit.pause == PAUSE


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_pauses_differ_by_chance_and_are_never_longer_than_configured(chance: float) -> None:
    on = Stage(chance=chance)
    on.fail(3)

    assert on.circuit.pause == pytest.approx(PAUSE * (1 - JITTER_SHARE * chance))
