"""Connections are limited in number, and counted."""

from __future__ import annotations

from icr_proxy.server.limits import ConnectionLimit


def test_a_place_that_is_given_back_can_be_taken_again() -> None:
    heard: list[str] = []
    places = ConnectionLimit(2, arrived=heard.append)

    first, second, third = [places.take() for _ in range(3)]
    assert first is not None
    assert second is not None
    assert third is None
    first.leave()
    first.leave()
    assert not places.is_full
    assert places.take() is not None

    assert places.taken == 2
    assert heard == ["accepted", "accepted", "refused", "accepted"]


def test_nobody_has_to_listen() -> None:
    assert ConnectionLimit(1).take() is not None


def test_a_place_beyond_the_limit_is_left_like_any_other() -> None:
    places = ConnectionLimit(1)
    first, second = places.take(), places.take(beyond=True)
    assert first is not None
    assert second is not None
    assert places.taken == 2
    first.leave()
    assert places.is_full
    second.leave()

    assert places.taken == 0
