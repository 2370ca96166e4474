"""Connections are limited in number, and counted."""

from __future__ import annotations

from icr_proxy.server.limits import ConnectionLimit


def test_a_place_that_is_given_back_can_be_taken_again() -> None:
    heard: list[str] = []
    places = ConnectionLimit(2, arrived=heard.append)

    first, second, third = [places.acquire() for _ in range(3)]
    assert first is not None
    assert second is not None
    assert third is None
    first.release()
    first.release()
    assert not places.is_full
    assert places.acquire() is not None

    assert places.taken == 2
    assert heard == ["accepted", "accepted", "refused", "accepted"]


def test_nobody_has_to_listen() -> None:
    assert ConnectionLimit(1).acquire() is not None


def test_a_place_beyond_the_limit_is_left_like_any_other() -> None:
    places = ConnectionLimit(1)
    first, second = places.acquire(), places.acquire(beyond=True)
    assert first is not None
    assert second is not None
    assert places.taken == 2
    first.release()
    assert places.is_full
    second.release()

    assert places.taken == 0
