import pytest

from icr_proxy.policy.caller_auth import DELAY, FORGET_SECONDS, FailureDelay, rate_limit_key

NOW = 1000.0


def fail(
    lateness: FailureDelay, times: int, *, peer: str = "10.0.0.1", at: float = NOW
) -> list[float]:
    return [lateness.fail(peer, now=at)[1] for _ in range(times)]


def test_the_first_failure_is_free_and_each_further_one_later() -> None:
    assert fail(FailureDelay(), 9) == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_it_never_grows_beyond_the_bound() -> None:
    assert fail(FailureDelay(), 5000)[-1] == DELAY.most


def test_failures_are_counted() -> None:
    lateness = FailureDelay()
    fail(lateness, 4)

    assert lateness.fail("10.0.0.1", now=NOW)[0] == 5


def test_after_a_quiet_minute_all_is_forgotten() -> None:
    lateness = FailureDelay()
    fail(lateness, 9)

    assert fail(lateness, 1, at=NOW + FORGET_SECONDS) == [5.0]
    assert fail(lateness, 1, at=NOW + 2 * FORGET_SECONDS + 1) == [0.0]


def test_addresses_have_their_own() -> None:
    lateness = FailureDelay()
    fail(lateness, 9)

    assert fail(lateness, 1, peer="10.0.0.2") == [0.0]


def test_the_memory_is_bounded() -> None:
    lateness = FailureDelay(max_entries=3)

    for number in range(10):
        lateness.fail(f"10.0.0.{number}", now=NOW)

    assert len(lateness) == 3


@pytest.mark.parametrize(
    ("peer", "place"),
    [
        pytest.param("10.0.0.1", "10.0.0.1", id="IPv4"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", id="IPv6: all of a /64"),
        pytest.param("fe80::1%eth0", "fe80::", id="with a zone"),
        pytest.param("::ffff:10.0.0.1", "10.0.0.1", id="IPv4 on an IPv6 socket"),
        pytest.param("unix:uid=7,pid=1234", "unix:uid=7", id="a Unix socket: its user"),
        pytest.param("", "", id="not known"),
    ],
)
def test_whoever_has_one_address_has_its_neighbours(peer: str, place: str) -> None:
    assert rate_limit_key(peer) == place
