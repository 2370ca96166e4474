from proxy.access import TokenKey
from proxy.rationing import Rations

ONE, TWO = TokenKey("in-1"), TokenKey("in-2")
NOW = 1000.0


def taken(rations: Rations, number: int, *, at: float, key: TokenKey = ONE) -> list[bool]:
    return [rations.take(key, now=at) for _ in range(number)]


def test_five_may_be_taken_at_once() -> None:
    rations = Rations(max_entries=3)

    assert taken(rations, 7, at=NOW) == [True] * 5 + [False] * 2


def test_one_grows_back_in_five_seconds() -> None:
    rations = Rations(max_entries=3)
    taken(rations, 5, at=NOW)

    assert taken(rations, 1, at=NOW + 4.9) == [False]
    assert taken(rations, 2, at=NOW + 5.1) == [True, False]


def test_no_more_grow_back_than_there_were() -> None:
    rations = Rations(max_entries=3)
    taken(rations, 5, at=NOW)

    assert taken(rations, 6, at=NOW + 3600) == [True] * 5 + [False]


def test_installations_have_their_own() -> None:
    rations = Rations(max_entries=3)
    taken(rations, 5, at=NOW)

    assert taken(rations, 1, at=NOW, key=TWO) == [True]


def test_a_clock_set_back_gives_none() -> None:
    rations = Rations(max_entries=3)
    taken(rations, 5, at=NOW)

    assert taken(rations, 1, at=NOW - 3600) == [False]


def test_the_memory_is_bounded() -> None:
    rations = Rations(max_entries=3)

    for number in range(10):
        rations.take(TokenKey(f"in-{number}"), now=NOW)

    assert len(rations) == 3
