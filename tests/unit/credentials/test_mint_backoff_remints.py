import pytest

from icr_proxy.credentials.mint_backoff import FailureLimiter, RemintLimiter
from icr_proxy.errors import (
    AppKeyRefusedError,
    InstallationRefusedError,
    MintError,
    MintRationedError,
    MintTimeoutError,
)
from icr_proxy.identifiers import TokenKey

ONE, TWO = TokenKey("in-1"), TokenKey("in-2")
NOW = 1000.0


def taken(rations: RemintLimiter, number: int, *, at: float, key: TokenKey = ONE) -> list[bool]:
    return [rations.allow(key, now=at) for _ in range(number)]


def test_five_may_be_taken_at_once() -> None:
    rations = RemintLimiter(max_entries=3)

    assert taken(rations, 7, at=NOW) == [True] * 5 + [False] * 2


def test_one_grows_back_in_five_seconds() -> None:
    rations = RemintLimiter(max_entries=3)
    taken(rations, 5, at=NOW)

    assert taken(rations, 1, at=NOW + 4.9) == [False]
    assert taken(rations, 2, at=NOW + 5.1) == [True, False]


def test_no_more_grow_back_than_there_were() -> None:
    rations = RemintLimiter(max_entries=3)
    taken(rations, 5, at=NOW)

    assert taken(rations, 6, at=NOW + 3600) == [True] * 5 + [False]


def test_installations_have_their_own() -> None:
    rations = RemintLimiter(max_entries=3)
    taken(rations, 5, at=NOW)

    assert taken(rations, 1, at=NOW, key=TWO) == [True]


def test_a_clock_set_back_gives_none() -> None:
    rations = RemintLimiter(max_entries=3)
    taken(rations, 5, at=NOW)

    assert taken(rations, 1, at=NOW - 3600) == [False]


def test_the_memory_is_bounded() -> None:
    rations = RemintLimiter(max_entries=3)

    for number in range(10):
        rations.allow(TokenKey(f"in-{number}"), now=NOW)

    assert len(rations) == 3


def fail_until_used_up(ration: FailureLimiter, *, at: float) -> int:
    failed = 0
    while not ration.is_used_up(at):
        ration.check(at)
        ration.failed(InstallationRefusedError("x"))
        failed += 1
    return failed


def test_fifty_mints_of_unknown_installations_may_fail_at_once() -> None:
    ration = FailureLimiter(now=NOW)

    assert fail_until_used_up(ration, at=NOW) == 50
    with pytest.raises(MintRationedError) as caught:
        ration.check(NOW)
    assert caught.value.retry_after == 1.0


def test_one_failure_a_second_is_allowed_after_that() -> None:
    ration = FailureLimiter(now=NOW)
    fail_until_used_up(ration, at=NOW)

    assert fail_until_used_up(ration, at=NOW + 0.9) == 0
    assert fail_until_used_up(ration, at=NOW + 10.0) == 10
    assert fail_until_used_up(ration, at=NOW + 3600.0) == 50


def test_failures_that_were_under_way_are_made_up_for() -> None:
    ration = FailureLimiter(now=NOW)
    for _ in range(60):
        ration.failed(InstallationRefusedError("x"))

    with pytest.raises(MintRationedError) as caught:
        ration.check(NOW)

    assert caught.value.retry_after == 11.0
    assert ration.is_used_up(NOW + 10.9)
    assert not ration.is_used_up(NOW + 11.0)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (InstallationRefusedError("x"), True),
        (MintError("x", reason="status-4xx"), True),
        (MintError("x", reason="status-5xx"), True),
        (MintError("x", reason="malformed"), True),
        (MintTimeoutError("x"), False),
        (MintError("x", reason="unreachable"), False),
        (MintError("x", reason="busy"), False),
        (AppKeyRefusedError("x"), False),
    ],
    ids=lambda value: str(getattr(value, "reason", value)),
)
def test_only_an_answer_about_the_installation_counts(error: MintError, counts: bool) -> None:  # noqa: FBT001
    ration = FailureLimiter(now=NOW)
    for _ in range(50):
        ration.failed(error)

    assert ration.is_used_up(NOW) == counts


def test_the_first_refusal_is_told_apart_until_the_ration_is_full_again() -> None:
    ration = FailureLimiter(now=NOW)

    told = []
    for at in (NOW, NOW + 5.0, NOW + 3600.0):
        fail_until_used_up(ration, at=at)
        for _ in range(2):
            with pytest.raises(MintRationedError) as caught:
                ration.check(at)
            told.append(caught.value.is_first)

    assert told == [True, False, False, False, True, False]
