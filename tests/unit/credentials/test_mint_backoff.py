import pytest

from icr_proxy.credentials.mint_backoff import MintFailures
from icr_proxy.errors import (
    AppKeyRefusedError,
    InstallationRefusedError,
    MintError,
    MintTimeoutError,
)
from icr_proxy.identifiers import TokenKey

ONE, TWO = TokenKey("in-1"), TokenKey("in-2")
NOW = 1000.0


@pytest.fixture
def failures() -> MintFailures:
    return MintFailures(max_entries=3, negative_ttl=30.0, random=lambda: 0.0)


@pytest.mark.parametrize(
    ("at", "holds"), [(-0.001, False), (0.0, True), (29.999, True), (30.0, False)]
)
def test_a_refusal_holds_for_its_time(failures: MintFailures, at: float, holds: bool) -> None:  # noqa: FBT001
    failures.remember(ONE, InstallationRefusedError("x"), now=NOW)

    assert (failures.lookup(ONE, now=NOW + at) is not None) == holds


def test_a_refused_key_is_found_for_everybody(failures: MintFailures) -> None:
    failures.remember(ONE, AppKeyRefusedError("x"), now=NOW)

    assert failures.lookup(TWO, now=NOW) is not None


def test_what_succeeded_is_forgotten_and_so_is_a_refused_key(failures: MintFailures) -> None:
    failures.remember(ONE, MintError("x"), now=NOW)
    failures.remember(TWO, AppKeyRefusedError("x"), now=NOW)

    failures.clear(ONE)

    assert failures.lookup(ONE, now=NOW) is None


@pytest.mark.parametrize(
    ("error", "is_found"),
    [
        pytest.param(InstallationRefusedError("x"), False, id="refused"),
        pytest.param(MintError("x"), True, id="5xx"),
        pytest.param(MintTimeoutError("x"), True, id="time-out"),
        pytest.param(AppKeyRefusedError("x"), True, id="key"),
    ],
)
def test_only_a_refusal_is_forgiven(
    failures: MintFailures,
    error: MintError,
    is_found: bool,  # noqa: FBT001
) -> None:
    """A webhook may be replayed; back-off must outlast that."""
    failures.remember(ONE, error, now=NOW)

    failures.clear_refusal(ONE)

    assert (failures.lookup(ONE, now=NOW) is not None) == is_found


def test_forgiving_what_never_failed_is_harmless(failures: MintFailures) -> None:
    failures.clear_refusal(ONE)

    assert len(failures) == 0


def test_the_memory_is_bounded(failures: MintFailures) -> None:
    for number in range(10):
        failures.remember(TokenKey(f"in-{number}"), InstallationRefusedError("x"), now=NOW)

    assert len(failures) == 3


def test_that_our_own_connections_were_busy_is_no_failure(failures: MintFailures) -> None:
    failures.remember(ONE, MintError("x", reason="busy"), now=NOW)

    assert failures.lookup(ONE, now=NOW) is None


def test_an_open_circuit_is_believed_for_as_long_as_it_says_and_delays_no_later_try(
    failures: MintFailures,
) -> None:
    """Nobody was asked, so there is nothing to back off from."""
    failures.remember(ONE, MintError("x"), now=NOW)
    for at in (1.0, 2.0, 3.0):
        failures.remember(ONE, MintError("x", reason="circuit-open", retry_after=0.5), now=NOW + at)
    found = failures.lookup(ONE, now=NOW + 3)
    assert found is not None
    assert (found.until, found.next_try, found.began) == (NOW + 3.5, NOW + 3.5, NOW)

    failures.remember(ONE, MintError("x"), now=NOW + 3.5)

    found = failures.lookup(ONE, now=NOW + 3.5)
    assert found is not None
    assert found.until == NOW + 3.5 + 2.0, "the second failure in a row"


def test_a_probe_under_way_is_waited_for_a_second(failures: MintFailures) -> None:
    failures.remember(ONE, MintError("x", reason="circuit-open"), now=NOW)

    found = failures.lookup(ONE, now=NOW)
    assert found is not None
    assert found.until == NOW + 1.0
