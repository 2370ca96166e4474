"""Connections are limited in number, and counted."""

from __future__ import annotations

from proxy.places import Places


def test_a_place_that_is_given_back_can_be_taken_again() -> None:
    heard: list[str] = []
    places = Places(2, arrived=heard.append)

    assert [places.take() for _ in range(3)] == [True, True, False]
    places.give_back()
    assert places.take()

    assert places.taken == 2
    assert heard == ["accepted", "accepted", "refused", "accepted"]


def test_nobody_has_to_listen() -> None:
    assert Places(1).take()
