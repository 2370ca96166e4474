from icr_proxy.shared_cache.membership import Presence


class Heard:
    """A `PresenceWatcher`."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def lost(self, reason: str, error: str) -> None:
        self.told.append(("lost", reason, error))

    def back(self, seconds: float) -> None:
        self.told.append(("back", seconds))


def test_it_is_told_once_when_it_goes_and_once_when_it_comes_back() -> None:
    heard = Heard()
    presence = Presence(random=lambda: 0.0, watcher=heard)

    presence.answered(now=99.0)
    for at in (100.0, 101.0, 102.0):
        presence.failed("timeout", "TimeoutError", now=at)
    states = [presence.is_up]
    for at in (105.0, 106.0):
        presence.answered(now=at)

    assert [*states, presence.is_up] == [False, True]
    assert heard.told == [("lost", "timeout", "TimeoutError"), ("back", 5.0)]


def test_it_is_left_alone_for_longer_each_time_it_is_tried_in_vain() -> None:
    presence = Presence(random=lambda: 0.0, watcher=Heard())

    assert [presence.pause() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_replicas_do_not_try_together() -> None:
    late = Presence(random=lambda: 0.0, watcher=Heard())
    early = Presence(random=lambda: 0.999, watcher=Heard())

    assert late.pause() == 1.0
    assert 0.5 < early.pause() < 0.51


def test_what_fails_again_soon_has_never_been_back() -> None:
    presence = Presence(random=lambda: 0.0, watcher=Heard())
    presence.failed("timeout", "TimeoutError", now=100.0)
    first = presence.pause()
    presence.answered(now=101.0)
    presence.failed("timeout", "TimeoutError", now=120.0)
    second = presence.pause()
    presence.answered(now=122.0)
    presence.failed("timeout", "TimeoutError", now=182.0)

    assert (first, second, presence.pause()) == (1.0, 2.0, 1.0)
