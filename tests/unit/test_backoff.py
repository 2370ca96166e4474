from __future__ import annotations

import pytest

from icr_proxy.backoff import Backoff

BACKOFF = Backoff(first=1.0, most=30.0, jitter=0.4)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0), (6, 30.0), (10**6, 30.0)]
)
def test_the_pause_doubles_up_to_the_longest(failures: int, seconds: float) -> None:
    assert BACKOFF.pause(failures) == seconds


def test_another_growth_is_possible() -> None:
    assert Backoff(first=1.0, most=9.0, growth=1.5).pause(3) == 2.25


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 30.0), (0.5, 24.0), (1.0, 18.0)])
def test_chance_only_shortens_a_pause(chance: float, seconds: float) -> None:
    assert BACKOFF.pause(9, chance=chance) == pytest.approx(seconds)
