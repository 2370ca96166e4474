from icr_proxy.lru_cache import Recent


def full() -> Recent[str, int]:
    recent: Recent[str, int] = Recent(2)
    recent["a"] = 1
    recent["b"] = 2
    return recent


def test_the_oldest_leaves_when_there_are_too_many() -> None:
    recent = full()

    recent["c"] = 3

    assert dict(recent) == {"b": 2, "c": 3}


def test_what_is_used_stays() -> None:
    recent = full()

    assert recent.use("a") == 1
    recent["c"] = 3

    assert dict(recent) == {"a": 1, "c": 3}


def test_what_is_written_anew_stays_with_its_new_value() -> None:
    recent = full()

    recent["a"] = 4
    recent["c"] = 3

    assert dict(recent) == {"a": 4, "c": 3}


def test_looking_is_not_using() -> None:
    recent = full()

    assert (recent.get("a"), "a" in recent, next(iter(recent.items()))) == (1, True, ("a", 1))
    recent["c"] = 3

    assert dict(recent) == {"b": 2, "c": 3}


def test_what_is_not_there_is_used_in_vain() -> None:
    recent = full()

    assert recent.use("c") is None
    assert dict(recent) == {"a": 1, "b": 2}


def test_what_is_taken_out_makes_room() -> None:
    recent = full()

    del recent["a"]
    recent["c"] = 3

    assert recent.pop("b") == 2
    assert dict(recent) == {"c": 3}
