import asyncio
import gc
import math
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.config.inbound_models import TokensConfig
from icr_proxy.credentials.access_token import AccessToken, CachedToken
from icr_proxy.credentials.token_cache import TokenCache
from icr_proxy.errors import (
    AppKeyRefusedError,
    InstallationBlockedError,
    InstallationRefusedError,
    MintError,
    MintRationedError,
    MintTimeoutError,
)
from icr_proxy.identifiers import TokenKey
from icr_proxy.redaction import Secret

NOW = 1_700_000_000.0
ONE, TWO = TokenKey("in-1"), TokenKey("in-2")


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


class Mints:
    """An exchange that gives what a test has laid out, as soon as its gate is open."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.asked: list[TokenKey] = []
        self.lifetime = 7200.0
        self.answers: deque[BaseException] = deque()
        """What goes wrong with the next mints; all goes well when there is none."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def __call__(self, key: TokenKey) -> AccessToken:
        self.asked.append(key)
        self.begun.set()
        await self.gate.wait()
        if self.answers:
            raise self.answers.popleft()
        secret = Secret(f"crs_{len(self.asked)}")
        at = self._clock()
        return AccessToken(
            secret=secret,
            minted_at=at,
            expires_at=at + self.lifetime,
            fingerprint=secret.fingerprint,
        )


class Heard:
    """A `TokenWatcher`."""

    def __init__(self) -> None:
        self.lookups: list[str] = []
        self.mints: list[tuple[str, TokenKey]] = []
        self.refusals: list[tuple[TokenKey, int, str]] = []

    def looked_up(self, result: str) -> None:
        self.lookups.append(result)

    def minted(self, key: TokenKey, _cached: CachedToken, _seconds: float) -> None:
        self.mints.append(("minted", key))

    def mint_failed(self, key: TokenKey, error: MintError, _seconds: float) -> None:
        self.mints.append((type(error).__name__, key))

    def refused(self, key: TokenKey, generation: int, result: str) -> None:
        self.refusals.append((key, generation, result))


@dataclass
class Stage:
    """A cache with all that surrounds it."""

    clock: Clock = field(default_factory=Clock)
    heard: Heard = field(default_factory=Heard)
    chance: float = 0.0
    dropped: list[tuple[TokenKey, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mints = Mints(self.clock)
        self.tokens = self.make(TokensConfig())

    def make(self, config: TokensConfig) -> TokenCache:
        self.tokens = TokenCache(
            mint=self.mints,
            config=config,
            now=self.clock,
            random=lambda: self.chance,
            watcher=self.heard,
            invalidated=lambda key, fingerprint: self.dropped.append((key, fingerprint)),
        )
        return self.tokens

    async def get(self, key: TokenKey = ONE) -> str:
        cached = await self.tokens.get(key)
        return cached.token.secret.reveal()

    async def fail(self, key: TokenKey = ONE) -> MintError:
        with pytest.raises(MintError) as caught:
            await self.tokens.get(key)
        return caught.value

    def ask(self, number: int, key: TokenKey = ONE) -> list[asyncio.Task[CachedToken]]:
        loop = asyncio.get_running_loop()
        return [loop.create_task(self.tokens.get(key), name=f"ask-{i}") for i in range(number)]

    async def all_waiting(self, waiters: list[asyncio.Task[CachedToken]]) -> None:
        """Let every waiter reach the mint; tasks run in the order in which they were made."""
        await self.mints.begun.wait()
        assert not any(waiter.done() for waiter in waiters)

    async def renewed(self) -> None:
        """Wait for the mints in the background."""
        if self.tokens._mints:
            await asyncio.wait(self.tokens._mints.values())  # which looks at no failure


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Give a stage, and see that no task's failure went by unseen."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    made = Stage()
    yield made
    await made.tokens.stop()
    gc.collect(1)  # what a test has made is young
    assert complaints == []


# -- one mint for all who wait --------------------------------------------------------------------


async def test_concurrent_requests_share_one_mint(stage: Stage) -> None:
    found = await asyncio.gather(*stage.ask(1000))

    assert len(stage.mints.asked) == 1
    assert {id(cached) for cached in found} == {id(found[0])}


async def test_a_token_is_minted_once_and_used_again(stage: Stage) -> None:
    used = [await stage.get() for _ in range(3)]

    assert used == ["crs_1"] * 3
    assert stage.heard.lookups == ["dead", "fresh", "fresh"]


async def test_installations_never_share_a_token(stage: Stage) -> None:
    keys = [ONE, TWO, TokenKey(None)]

    used = await asyncio.gather(*(stage.get(key) for key in keys))

    assert len(set(used)) == 3
    assert stage.mints.asked == keys


async def test_the_header_value_carries_the_token(stage: Stage) -> None:
    cached = await stage.tokens.get(ONE)

    assert cached.authorization == b"Bearer crs_1"
    assert "crs_1" not in repr(cached)


@pytest.mark.parametrize("number", [0, 1, 4], ids=["first", "middle", "last"])
async def test_cancelling_one_waiter_harms_no_other(stage: Stage, number: int) -> None:
    stage.mints.gate.clear()
    waiters = stage.ask(5)
    await stage.all_waiting(waiters)

    gone = waiters.pop(number)
    gone.cancel()
    await asyncio.wait({gone})
    stage.mints.gate.set()
    found = await asyncio.gather(*waiters)

    assert gone.cancelled()
    assert {cached.generation for cached in found} == {1}
    assert len(stage.mints.asked) == 1


async def test_a_mint_nobody_waits_for_any_more_still_fills_the_cache(stage: Stage) -> None:
    stage.mints.gate.clear()
    waiters = stage.ask(3)
    await stage.all_waiting(waiters)

    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    stage.mints.gate.set()

    assert await stage.get() == "crs_1"
    assert len(stage.mints.asked) == 1


async def test_a_failure_nobody_waits_for_any_more_is_remembered(stage: Stage) -> None:
    stage.mints.gate.clear()
    stage.mints.answers.append(MintError("failed"))
    waiters = stage.ask(3)
    await stage.all_waiting(waiters)

    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    stage.mints.gate.set()
    await stage.renewed()
    await stage.fail()

    assert len(stage.mints.asked) == 1


async def test_every_waiter_has_its_own_deadline(stage: Stage) -> None:
    stage.make(TokensConfig(waiter_timeout=0.05))
    stage.mints.gate.clear()

    error = await stage.fail()

    assert type(error) is MintTimeoutError
    assert stage.tokens.minting == 1


async def test_a_deadline_of_one_does_not_end_the_mint(stage: Stage) -> None:
    stage.make(TokensConfig(waiter_timeout=0.05))
    stage.mints.gate.clear()
    await stage.fail()
    stage.mints.gate.set()

    assert await stage.get() == "crs_1"
    assert len(stage.mints.asked) == 1


# -- failures -------------------------------------------------------------------------------------


async def test_a_failure_is_told_to_all_who_wait_each_with_its_own_exception(stage: Stage) -> None:
    stage.mints.answers.append(MintError("the API failed", retry_after=7.0))

    found = await asyncio.gather(*stage.ask(50), return_exceptions=True)

    assert len(stage.mints.asked) == 1
    assert len({id(error) for error in found}) == 50
    assert {(type(error), str(error)) for error in found} == {(MintError, "the API failed")}
    assert {getattr(error, "retry_after", None) for error in found} == {7.0}


async def test_a_remembered_failure_is_a_new_exception_each_time(stage: Stage) -> None:
    stage.mints.answers.append(MintError("the API failed"))

    errors = [await stage.fail() for _ in range(3)]

    assert len({id(error) for error in errors}) == 3
    assert stage.heard.lookups == ["dead", "negative", "negative"]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        pytest.param(InstallationRefusedError("x"), 30.0, id="403, 404: negative_ttl"),
        pytest.param(AppKeyRefusedError("x"), 1.0, id="401"),
        pytest.param(MintError("x"), 1.0, id="5xx"),
        pytest.param(MintTimeoutError("x"), 1.0, id="time-out"),
        pytest.param(MintError("x", retry_after=0.2), 1.0, id="Retry-After, short"),
        pytest.param(MintError("x", retry_after=12.0), 12.0, id="Retry-After"),
        pytest.param(MintError("x", retry_after=120.0), 120.0, id="Retry-After, long"),
        pytest.param(MintError("x", retry_after=3600.0), 300.0, id="Retry-After, mistaken"),
        pytest.param(InstallationRefusedError("x", retry_after=5.0), 30.0, id="403, comes later"),
    ],
)
async def test_a_failure_is_remembered_as_long_as_its_kind_deserves(
    stage: Stage, error: MintError, seconds: float
) -> None:
    stage.mints.answers.append(error)
    await stage.fail()

    stage.clock.at = NOW + seconds - 0.001
    negative = await stage.fail()
    stage.clock.at = NOW + seconds

    assert negative.retry_after == pytest.approx(0.001, abs=1e-6)
    assert await stage.get() == "crs_2"


async def test_a_remembered_failure_keeps_its_reason(stage: Stage) -> None:
    stage.mints.answers.append(MintError("x", reason="tls"))

    errors = [await stage.fail(), await stage.fail()]

    assert [error.reason for error in errors] == ["tls", "tls"]


async def test_without_negative_ttl_a_refused_installation_is_asked_for_again(stage: Stage) -> None:
    stage.make(TokensConfig(negative_ttl=0.0))
    stage.mints.answers.append(InstallationRefusedError("x"))
    await stage.fail()

    assert await stage.get() == "crs_2"


async def test_a_refused_installation_says_nothing_about_others(stage: Stage) -> None:
    stage.mints.answers.append(InstallationRefusedError("x"))
    await stage.fail(ONE)

    assert await stage.get(TWO) == "crs_2"


@pytest.mark.parametrize("error", [MintError("x"), MintTimeoutError("x")], ids=repr)
async def test_a_passing_failure_says_nothing_about_others(stage: Stage, error: MintError) -> None:
    stage.mints.answers.append(error)
    await stage.fail(ONE)

    assert await stage.get(TWO) == "crs_2"


async def test_a_refused_key_concerns_all_installations(stage: Stage) -> None:
    stage.mints.answers.append(AppKeyRefusedError("x"))
    await stage.fail(ONE)

    error = await stage.fail(TWO)

    assert type(error) is AppKeyRefusedError
    assert stage.mints.asked == [ONE]


async def test_a_refused_key_leaves_live_tokens_in_use(stage: Stage) -> None:
    await stage.get(ONE)
    stage.mints.answers.append(AppKeyRefusedError("x"))
    await stage.fail(TWO)

    assert await stage.get(ONE) == "crs_1"


async def waits(stage: Stage, number: int, make: Callable[[], MintError]) -> list[float]:
    """Fail so many times, each as soon as asking is allowed; give how long that took."""
    found = []
    for _ in range(number):
        stage.mints.answers.append(make())
        await stage.fail()
        found.append((await stage.fail()).retry_after or 0.0)
        stage.clock.at += found[-1] + 0.001
    return found


@pytest.mark.parametrize("kind", [MintError, MintTimeoutError, AppKeyRefusedError])
async def test_back_off_doubles_up_to_half_a_minute(stage: Stage, kind: type[MintError]) -> None:
    found = await waits(stage, 8, lambda: kind("x"))

    assert found == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])


@pytest.mark.parametrize("chance", [0.25, 0.5, 0.999])
async def test_back_off_is_jittered(stage: Stage, chance: float) -> None:
    stage.chance = chance

    found = await waits(stage, 3, lambda: MintError("x"))

    assert found == pytest.approx([base * (1 - 0.4 * chance) for base in (1, 2, 4)])


@pytest.mark.parametrize("kind", [MintError, AppKeyRefusedError])
async def test_a_success_resets_the_back_off(stage: Stage, kind: type[MintError]) -> None:
    await waits(stage, 4, lambda: kind("x"))
    cached = await stage.tokens.get(ONE)
    stage.tokens.refused(ONE, cached.generation)

    found = await waits(stage, 2, lambda: kind("x"))

    assert found == pytest.approx([1, 2])


async def test_refusals_of_one_installation_do_not_lengthen_its_back_off(stage: Stage) -> None:
    for _ in range(6):
        stage.mints.answers.append(InstallationRefusedError("x"))
        await stage.fail()
        stage.clock.at += 30

    found = await waits(stage, 2, lambda: MintError("x"))

    assert found == pytest.approx([1, 2])


async def test_many_mints_that_fail_together_are_one_failure_of_the_key(stage: Stage) -> None:
    """Hundreds of installations may wait at start; their 401s must not add up to half a minute."""
    stage.mints.answers.extend(AppKeyRefusedError("x") for _ in range(100))
    keys = [TokenKey(f"in-{number}") for number in range(100)]
    await asyncio.gather(*(stage.fail(key) for key in keys))

    error = await stage.fail(ONE)

    assert error.retry_after == pytest.approx(1.0)


async def test_a_mistake_in_the_mint_is_not_taken_for_an_answer(stage: Stage) -> None:
    stage.mints.answers.append(RuntimeError("a bug"))

    with pytest.raises(RuntimeError, match="a bug"):
        await stage.tokens.get(ONE)

    assert await stage.get() == "crs_2"


# -- fresh, due, dead -----------------------------------------------------------------------------


async def test_a_due_token_is_used_and_renewed_once_in_the_background(stage: Stage) -> None:
    first = await stage.tokens.get(ONE)
    stage.clock.at = first.due_at
    stage.mints.gate.clear()

    used = [await stage.get() for _ in range(10)]
    stage.mints.gate.set()
    await stage.renewed()

    assert used == ["crs_1"] * 10
    assert len(stage.mints.asked) == 2
    assert await stage.get() == "crs_2"
    assert stage.heard.lookups == ["dead", *["due"] * 10, "fresh"]


async def test_a_token_is_fresh_until_the_moment_it_is_due(stage: Stage) -> None:
    first = await stage.tokens.get(ONE)
    stage.clock.at = math.nextafter(first.due_at, 0)

    await stage.get()

    assert stage.heard.lookups == ["dead", "fresh"]


async def test_a_failed_renewal_leaves_the_live_token_in_use(stage: Stage) -> None:
    first = await stage.tokens.get(ONE)
    stage.clock.at = first.due_at
    stage.mints.answers.append(MintError("x"))

    await stage.get()
    await stage.renewed()
    used = [await stage.get() for _ in range(10)]

    assert used == ["crs_1"] * 10
    assert len(stage.mints.asked) == 2


async def test_a_failed_renewal_is_tried_again_after_its_back_off(stage: Stage) -> None:
    first = await stage.tokens.get(ONE)
    stage.clock.at = first.due_at
    stage.mints.answers.append(MintError("x"))
    await stage.get()
    await stage.renewed()

    stage.clock.at += 1.0
    used = await stage.get()
    await stage.renewed()

    assert (used, await stage.get()) == ("crs_1", "crs_3")


async def test_a_dead_token_is_never_given(stage: Stage) -> None:
    first = await stage.tokens.get(ONE)

    stage.clock.at = math.nextafter(first.dead_at, 0)
    last_moment = await stage.get()
    stage.clock.at = first.dead_at
    await stage.renewed()

    assert last_moment == "crs_1"
    assert await stage.get() == "crs_2"


async def test_a_dead_token_is_not_given_even_if_there_is_no_other(stage: Stage) -> None:
    first = await stage.tokens.get(ONE)
    stage.clock.at = first.dead_at
    stage.mints.answers.append(MintError("x"))

    error = await stage.fail()

    assert type(error) is MintError


async def test_a_token_of_two_seconds_is_used_for_most_of_them(stage: Stage) -> None:
    stage.mints.lifetime = 2.0
    first = await stage.tokens.get(ONE)

    assert first.due_at == pytest.approx(NOW + 1.8)
    assert first.dead_at == pytest.approx(NOW + 1.9)


@pytest.mark.parametrize(
    ("lifetime", "margin", "due", "dead"),
    [
        pytest.param(7200.0, 300.0, 6900.0, 7198.0, id="two hours"),
        pytest.param(600.0, 300.0, 540.0, 598.0, id="a tenth at most"),
        pytest.param(7200.0, 0.0, 7198.0, 7198.0, id="no margin: renewed when dead"),
        pytest.param(30.0, 300.0, 27.0, 28.5, id="half a minute"),
    ],
)
async def test_the_moments_of_a_token(
    stage: Stage, lifetime: float, margin: float, due: float, dead: float
) -> None:
    stage.make(TokensConfig(refresh_margin=margin))
    stage.mints.lifetime = lifetime

    cached = await stage.tokens.get(ONE)

    assert (cached.due_at - NOW, cached.dead_at - NOW) == pytest.approx((due, dead))


@given(
    minted_at=st.floats(min_value=1e9, max_value=4e9),
    lifetime=st.floats(min_value=0.1, max_value=1e6),
    margin=st.floats(min_value=0, max_value=86400),
    chance=st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_a_token_is_due_before_it_is_dead_and_dead_before_it_expires(
    minted_at: float, lifetime: float, margin: float, chance: float
) -> None:
    tokens = TokenCache(
        mint=Mints(Clock()),
        config=TokensConfig(refresh_margin=margin),
        now=Clock(),
        random=lambda: chance,
        watcher=Heard(),
    )
    token = AccessToken(
        secret=Secret("crs_1"),
        minted_at=minted_at,
        expires_at=minted_at + lifetime,
        fingerprint="",
    )

    cached = tokens._store(ONE, token)

    rounding = 1e-6  # of seconds since 1970 in a float
    assert minted_at < cached.due_at <= cached.dead_at < token.expires_at
    early = token.expires_at - cached.due_at
    assert early <= max(margin, 2.0) + rounding
    assert early <= lifetime * 0.1 + rounding
    assert early >= min(margin, lifetime * 0.1) * 0.6 - rounding


# -- clocks that jump -----------------------------------------------------------------------------


async def test_a_clock_set_forward_kills_tokens_early(stage: Stage) -> None:
    await stage.get()
    stage.clock.at += 86400

    assert await stage.get() == "crs_2"


async def test_a_clock_set_back_does_not_keep_a_token_for_longer(stage: Stage) -> None:
    """By the new time the token seems to live for hours more than it does."""
    await stage.get()
    stage.clock.at -= 3600

    used = await stage.get()
    await stage.renewed()

    assert (used, await stage.get()) == ("crs_1", "crs_2")
    assert stage.heard.lookups == ["dead", "due", "fresh"]


async def test_a_clock_that_trembles_causes_no_mints(stage: Stage) -> None:
    await stage.get()
    stage.clock.at -= 0.5

    await stage.get()

    assert stage.heard.lookups == ["dead", "fresh"]


@pytest.mark.parametrize("moved", [-3600.0, 3600.0], ids=["back", "forward"])
async def test_a_clock_that_jumps_makes_no_failure_last(stage: Stage, moved: float) -> None:
    stage.mints.answers.append(InstallationRefusedError("x"))
    await stage.fail()
    stage.clock.at += moved

    assert await stage.get() == "crs_2"


async def test_a_clock_set_back_grants_no_mints(stage: Stage) -> None:
    await exhaust(stage)
    stage.clock.at -= 3600

    allowed = stage.tokens.refused(ONE, (await stage.tokens.get(ONE)).generation)

    assert not allowed


# -- tokens the API refuses -----------------------------------------------------------------------


async def exhaust(stage: Stage) -> None:
    """Use up what refusals of ONE may cause."""
    for _ in range(5):
        cached = await stage.tokens.get(ONE)
        assert stage.tokens.refused(ONE, cached.generation)


async def test_a_refused_token_is_dropped(stage: Stage) -> None:
    cached = await stage.tokens.get(ONE)

    allowed = stage.tokens.refused(ONE, cached.generation)

    assert allowed
    assert await stage.get() == "crs_2"
    assert stage.heard.refusals == [(ONE, 1, "dropped")]


async def test_a_refused_token_drops_none_that_came_later(stage: Stage) -> None:
    old = await stage.tokens.get(ONE)
    stage.tokens.refused(ONE, old.generation)
    await stage.get()

    allowed = stage.tokens.refused(ONE, old.generation)

    assert allowed
    assert await stage.get() == "crs_2"
    assert stage.heard.refusals[-1] == (ONE, 1, "stale")


async def test_generations_are_never_reused(stage: Stage) -> None:
    one = await stage.tokens.get(ONE)
    two = await stage.tokens.get(TWO)
    stage.tokens.refused(ONE, one.generation)
    three = await stage.tokens.get(ONE)

    assert [one.generation, two.generation, three.generation] == [1, 2, 3]


async def test_many_requests_with_one_refused_token_cause_one_mint(stage: Stage) -> None:
    old = await stage.tokens.get(ONE)

    allowed = [stage.tokens.refused(ONE, old.generation) for _ in range(100)]
    found = await asyncio.gather(*stage.ask(100))

    assert all(allowed)
    assert {cached.generation for cached in found} == {2}
    assert len(stage.mints.asked) == 2


async def test_a_token_refused_while_it_is_renewed_waits_for_the_renewal(stage: Stage) -> None:
    old = await stage.tokens.get(ONE)
    stage.clock.at = old.due_at
    stage.mints.gate.clear()
    await stage.get()

    stage.tokens.refused(ONE, old.generation)
    stage.mints.gate.set()

    assert await stage.get() == "crs_2"
    assert len(stage.mints.asked) == 2


async def test_an_api_that_refuses_everything_causes_no_storm(stage: Stage) -> None:
    await exhaust(stage)
    cached = await stage.tokens.get(ONE)

    allowed = [stage.tokens.refused(ONE, cached.generation) for _ in range(20)]

    assert not any(allowed)
    assert stage.heard.refusals[-1] == (ONE, cached.generation, "limited")
    assert len(stage.mints.asked) == 6


async def test_the_allowance_grows_back(stage: Stage) -> None:
    await exhaust(stage)
    cached = await stage.tokens.get(ONE)

    stage.clock.at += 4.9
    early = stage.tokens.refused(ONE, cached.generation)
    stage.clock.at += 0.2
    later = stage.tokens.refused(ONE, cached.generation)

    assert (early, later) == (False, True)


async def test_the_allowance_grows_back_no_further_than_it_was(stage: Stage) -> None:
    await exhaust(stage)
    stage.clock.at += 3600
    await exhaust(stage)
    cached = await stage.tokens.get(ONE)

    assert not stage.tokens.refused(ONE, cached.generation)


async def test_every_installation_has_an_allowance_of_its_own(stage: Stage) -> None:
    await exhaust(stage)
    cached = await stage.tokens.get(TWO)

    assert stage.tokens.refused(TWO, cached.generation)


# -- bounds ---------------------------------------------------------------------------------------


async def test_the_least_recently_used_token_leaves_first(stage: Stage) -> None:
    stage.make(TokensConfig(max_entries=2))
    await stage.get(ONE)
    await stage.get(TWO)
    await stage.get(ONE)

    await stage.get(TokenKey("in-3"))

    assert {key.installation for key, _ in stage.tokens} == {"in-1", "in-3"}


async def test_invented_installations_push_out_no_token(stage: Stage) -> None:
    stage.make(TokensConfig(max_entries=2))
    await stage.get(ONE)
    stage.mints.answers.extend(InstallationRefusedError("x") for _ in range(50))

    for number in range(50):
        await stage.fail(TokenKey(f"invented-{number}"))

    assert await stage.get(ONE) == "crs_1"


async def test_looking_at_the_tokens_is_not_using_them(stage: Stage) -> None:
    """Metrics and status do so every few seconds; `LRUCache` counts each look as a use."""
    stage.make(TokensConfig(max_entries=3))
    for key in (ONE, TWO, TokenKey(None)):
        await stage.get(key)
    await stage.get(ONE)

    assert [key for key, _ in stage.tokens] == [ONE, TWO, TokenKey(None)]
    await stage.get(TokenKey("three"))

    assert {key for key, _ in stage.tokens} == {ONE, TokenKey(None), TokenKey("three")}


async def test_memories_of_failures_and_refusals_are_bounded(stage: Stage) -> None:
    stage.make(TokensConfig(max_entries=3))
    stage.mints.answers.extend(InstallationRefusedError("x") for _ in range(10))
    for number in range(10):
        await stage.fail(TokenKey(f"invented-{number}"))
    for number in range(10):
        cached = await stage.tokens.get(TokenKey(f"in-{number}"))
        stage.tokens.refused(TokenKey(f"in-{number}"), cached.generation)

    assert (len(stage.tokens._failures), len(stage.tokens._remint_limiter)) == (3, 3)


# -- dropped on purpose ---------------------------------------------------------------------------


async def test_a_dropped_token_is_not_given_again(stage: Stage) -> None:
    cached = await stage.tokens.get(ONE)

    dropped = stage.tokens.invalidate(ONE)

    assert dropped
    assert not stage.tokens.may_be_sent(ONE, cached)
    assert await stage.get() == "crs_2"


async def test_a_token_of_before_a_drop_may_not_be_sent_and_one_of_after_it_may(
    stage: Stage,
) -> None:
    before = await stage.tokens.get(ONE)
    other = await stage.tokens.get(TWO)
    stage.tokens.invalidate(ONE)
    after = await stage.tokens.get(ONE)

    assert not stage.tokens.may_be_sent(ONE, before)
    assert stage.tokens.may_be_sent(ONE, after)
    assert stage.tokens.may_be_sent(TWO, other)


async def test_a_refused_token_may_not_be_sent(stage: Stage) -> None:
    cached = await stage.tokens.get(ONE)
    stage.tokens.refused(ONE, cached.generation)

    assert not stage.tokens.may_be_sent(ONE, cached)


async def test_a_token_of_a_blocked_installation_may_not_be_sent(stage: Stage) -> None:
    cached = await stage.tokens.get(ONE)
    stage.tokens.block(ONE)

    with pytest.raises(InstallationBlockedError):
        stage.tokens.may_be_sent(ONE, cached)


async def test_a_dead_token_may_not_be_sent(stage: Stage) -> None:
    cached = await stage.tokens.get(ONE)
    stage.clock.at = cached.dead_at

    assert not stage.tokens.may_be_sent(ONE, cached)


async def test_there_may_be_nothing_to_drop(stage: Stage) -> None:
    await stage.get(TWO)

    assert not stage.tokens.invalidate(ONE)
    assert await stage.get(TWO) == "crs_1"


async def test_dropping_is_no_refusal_of_the_api(stage: Stage) -> None:
    """Refusals are rationed, and an operator is not."""
    for number in range(20):
        assert await stage.get() == f"crs_{number + 1}"
        assert stage.tokens.invalidate(ONE)

    assert stage.heard.refusals == []


async def test_a_mint_under_way_brings_no_token_from_before_the_drop(stage: Stage) -> None:
    stage.mints.gate.clear()
    waiters = stage.ask(5)
    await stage.all_waiting(waiters)

    dropped = stage.tokens.invalidate(ONE)
    stage.mints.gate.set()
    found = await asyncio.gather(*waiters)

    assert dropped
    assert {cached.token.secret.reveal() for cached in found} == {"crs_2"}
    assert {cached.generation for cached in found} == {2}
    assert await stage.get() == "crs_2"


async def test_two_drops_during_one_mint_cost_one_more(stage: Stage) -> None:
    stage.mints.gate.clear()
    waiters = stage.ask(1)
    await stage.all_waiting(waiters)

    stage.tokens.invalidate(ONE)
    stage.tokens.invalidate(ONE)
    stage.mints.gate.set()
    await asyncio.gather(*waiters)

    assert len(stage.mints.asked) == 2


async def test_a_mint_that_was_made_again_may_be_outdated_as_well(stage: Stage) -> None:
    first = stage.mints.gate
    first.clear()
    waiters = stage.ask(1)
    await stage.all_waiting(waiters)
    stage.tokens.invalidate(ONE)
    second = stage.mints.gate = asyncio.Event()
    stage.mints.begun.clear()
    first.set()
    await stage.mints.begun.wait()

    stage.tokens.invalidate(ONE)
    second.set()
    (found,) = await asyncio.gather(*waiters)

    assert found.token.secret.reveal() == "crs_3"


async def test_a_renewal_in_the_background_survives_no_drop(stage: Stage) -> None:
    first = await stage.tokens.get(ONE)
    stage.clock.at = first.due_at
    stage.mints.gate.clear()
    await stage.get()
    stage.mints.begun.clear()
    await stage.mints.begun.wait()

    stage.tokens.invalidate(ONE)
    stage.mints.gate.set()

    assert await stage.get() == "crs_3"
    assert [cached.generation for _, cached in stage.tokens] == [3]


async def test_a_token_dropped_before_its_waiters_went_on_is_given_to_none(stage: Stage) -> None:
    stage.mints.gate.clear()
    waiters = stage.ask(3)
    await stage.all_waiting(waiters)
    (mint,) = stage.tokens._mints.values()
    mint.add_done_callback(lambda _mint: stage.tokens.invalidate(ONE))

    stage.mints.gate.set()
    found = await asyncio.gather(*waiters)

    assert {cached.token.secret.reveal() for cached in found} == {"crs_2"}


async def test_a_failure_from_before_the_drop_is_told_to_nobody(stage: Stage) -> None:
    stage.mints.gate.clear()
    stage.mints.answers.append(InstallationRefusedError("suspended"))
    waiters = stage.ask(3)
    await stage.all_waiting(waiters)

    stage.tokens.invalidate(ONE)
    stage.mints.gate.set()
    found = await asyncio.gather(*waiters)

    assert {cached.token.secret.reveal() for cached in found} == {"crs_2"}
    assert stage.heard.mints == [("InstallationRefusedError", ONE), ("minted", ONE)]


async def test_a_failure_after_the_drop_is_told(stage: Stage) -> None:
    stage.mints.gate.clear()
    stage.mints.answers.extend([MintError("before"), MintError("after")])
    waiters = stage.ask(1)
    await stage.all_waiting(waiters)

    stage.tokens.invalidate(ONE)
    stage.mints.gate.set()
    (error,) = await asyncio.gather(*waiters, return_exceptions=True)

    assert str(error) == "after"


async def test_a_drop_ends_the_memory_of_a_refusal(stage: Stage) -> None:
    """An installation that is suspended no longer is served at once, not after negative_ttl."""
    stage.mints.answers.append(InstallationRefusedError("suspended"))
    await stage.fail()

    dropped = stage.tokens.invalidate(ONE)

    assert not dropped
    assert await stage.get() == "crs_2"


async def test_a_drop_of_one_leaves_the_others(stage: Stage) -> None:
    await stage.get(ONE)
    await stage.get(TWO)

    stage.tokens.invalidate(ONE)

    assert await stage.get(TWO) == "crs_2"


async def test_the_api_may_refuse_a_token_that_was_dropped_meanwhile(stage: Stage) -> None:
    old = await stage.tokens.get(ONE)
    stage.tokens.invalidate(ONE)
    await stage.get()

    assert stage.tokens.refused(ONE, old.generation)
    assert await stage.get() == "crs_2"


# -- blocked --------------------------------------------------------------------------------------


async def test_a_blocked_installation_gets_no_token(stage: Stage) -> None:
    await stage.get()

    stage.tokens.block(ONE)

    assert type(await stage.fail()) is InstallationBlockedError
    assert stage.tokens.blocked == {ONE}
    assert len(stage.mints.asked) == 1
    assert stage.heard.lookups == ["dead", "blocked"]


async def test_a_block_is_about_one_installation(stage: Stage) -> None:
    stage.tokens.block(ONE)

    assert await stage.get(TWO) == "crs_1"


async def test_an_unblocked_installation_gets_a_new_token(stage: Stage) -> None:
    await stage.get()
    stage.tokens.block(ONE)

    stage.tokens.unblock(ONE)

    assert await stage.get() == "crs_2"
    assert stage.tokens.blocked == set()


async def test_a_switch_says_whether_it_changed_anything(stage: Stage) -> None:
    said = [
        stage.tokens.unblock(ONE),
        stage.tokens.block(ONE),
        stage.tokens.block(ONE),
        stage.tokens.unblock(ONE),
    ]

    assert said == [False, True, False, True]


@pytest.mark.parametrize("answers", [[], [MintError("x")]], ids=["minted", "failed"])
async def test_those_who_wait_when_it_is_blocked_get_nothing(
    stage: Stage, answers: list[BaseException]
) -> None:
    stage.mints.gate.clear()
    stage.mints.answers.extend(answers)
    waiters = stage.ask(3)
    await stage.all_waiting(waiters)

    stage.tokens.block(ONE)
    stage.mints.gate.set()
    found = await asyncio.gather(*waiters, return_exceptions=True)

    assert [type(error) for error in found] == [InstallationBlockedError] * 3
    assert len(stage.mints.asked) == 1
    assert list(stage.tokens) == []


async def test_blocked_and_unblocked_during_a_mint_it_is_made_again(stage: Stage) -> None:
    stage.mints.gate.clear()
    waiters = stage.ask(3)
    await stage.all_waiting(waiters)

    stage.tokens.block(ONE)
    stage.tokens.unblock(ONE)
    stage.mints.gate.set()
    found = await asyncio.gather(*waiters)

    assert {cached.token.secret.reveal() for cached in found} == {"crs_2"}


# -- what may still live at the API ---------------------------------------------------------------


async def test_all_that_was_minted_is_kept_to_be_revoked(stage: Stage) -> None:
    stage.make(TokensConfig(revoke_on_exit=True, max_entries=1))
    await stage.get(ONE)
    stage.tokens.invalidate(ONE)
    await stage.get(ONE)
    await stage.get(TWO)

    issued = stage.tokens.issued.drain(now=NOW)

    assert [token.secret.reveal() for token in issued] == ["crs_3", "crs_2", "crs_1"]


async def test_a_token_nobody_was_given_is_kept_to_be_revoked(stage: Stage) -> None:
    stage.make(TokensConfig(revoke_on_exit=True))
    stage.mints.gate.clear()
    waiters = stage.ask(1)
    await stage.all_waiting(waiters)
    stage.tokens.block(ONE)
    stage.mints.gate.set()
    await asyncio.wait(waiters)

    assert len(stage.tokens.issued) == 1
    assert all(isinstance(waiter.exception(), InstallationBlockedError) for waiter in waiters)


async def test_nothing_is_kept_unless_it_is_to_be_revoked(stage: Stage) -> None:
    await stage.get()

    assert len(stage.tokens.issued) == 0


# -- the end --------------------------------------------------------------------------------------


async def test_stopping_cancels_mints_and_tells_those_who_wait(stage: Stage) -> None:
    stage.mints.gate.clear()
    waiters = stage.ask(3)
    await stage.all_waiting(waiters)

    await stage.tokens.stop()
    found = await asyncio.gather(*waiters, return_exceptions=True)

    assert [type(error) for error in found] == [MintError] * 3
    assert stage.tokens.minting == 0


async def test_a_waiter_cancelled_while_stopping_is_cancelled(stage: Stage) -> None:
    stage.mints.gate.clear()
    (waiter,) = stage.ask(1)
    await stage.all_waiting([waiter])

    waiter.cancel()
    await stage.tokens.stop()
    await asyncio.wait({waiter})

    assert waiter.cancelled()


async def test_stopping_with_nothing_under_way_is_harmless(stage: Stage) -> None:
    await stage.get()

    await stage.tokens.stop()
    await stage.tokens.stop()

    assert stage.tokens.minting == 0


# -- what is told ---------------------------------------------------------------------------------


async def test_every_mint_is_told_with_its_end(stage: Stage) -> None:
    stage.mints.answers.append(MintError("x"))
    await stage.fail(ONE)
    await stage.get(TWO)

    assert stage.heard.mints == [("MintError", ONE), ("minted", TWO)]


@pytest.mark.parametrize(
    ("at", "state"),
    [(0.0, "fresh"), (6899.0, "fresh"), (6900.0, "due"), (7198.0, "dead"), (9999.0, "dead")],
)
async def test_a_token_knows_its_state(stage: Stage, at: float, state: str) -> None:
    cached = await stage.tokens.get(ONE)

    assert cached.state(NOW + at) == state


# -- patience -------------------------------------------------------------------------------------


@pytest.fixture
async def patient(stage: Stage) -> Stage:
    """Give a stage whose callers wait; waiting moves the clock."""

    async def sleep(seconds: float) -> None:
        stage.clock.at += seconds

    stage.tokens = TokenCache(
        mint=stage.mints,
        config=TokensConfig(waiter_timeout=10.0),
        now=stage.clock,
        random=lambda: 0.0,
        watcher=stage.heard,
        sleep=sleep,
    )
    return stage


async def test_a_short_failure_is_waited_for_and_not_told(patient: Stage) -> None:
    patient.mints.answers.extend([MintError("x"), MintTimeoutError("x")])

    assert await patient.get() == "crs_3"
    assert patient.clock.at - NOW == pytest.approx(2.0)


async def test_a_timer_that_fires_a_little_early_ends_no_patience(stage: Stage) -> None:
    """The event loop's timers have whole milliseconds, and another clock than the failures."""

    async def sleep(seconds: float) -> None:
        stage.clock.at += seconds - 0.001

    stage.tokens = TokenCache(
        mint=stage.mints,
        config=TokensConfig(),
        now=stage.clock,
        random=lambda: 0.0,
        watcher=stage.heard,
        sleep=sleep,
    )
    stage.mints.answers.append(MintError("x"))

    assert await stage.get() == "crs_2"
    assert "negative" not in stage.heard.lookups


async def test_nobody_waits_for_longer_than_the_waiter_timeout(patient: Stage) -> None:
    patient.mints.answers.extend(MintError("x") for _ in range(50))

    await patient.fail()

    assert 8.0 <= patient.clock.at - NOW <= 10.0


async def test_an_outage_that_has_lasted_is_told_at_once(patient: Stage) -> None:
    patient.mints.answers.extend(MintError("x") for _ in range(50))
    await patient.fail()
    patient.clock.at += 2.0
    before = patient.clock.at

    await patient.fail()

    assert patient.clock.at == before


async def test_who_waits_already_when_the_circuit_opens_goes_on_waiting(patient: Stage) -> None:
    patient.mints.answers.extend(
        [MintError("x"), MintError("x", reason="circuit-open", retry_after=4.0)]
    )

    assert await patient.get() == "crs_3"
    assert patient.clock.at - NOW == pytest.approx(5.0)


async def test_who_comes_while_the_circuit_is_open_is_told_at_once(patient: Stage) -> None:
    patient.mints.answers.append(MintError("x", reason="circuit-open", retry_after=4.0))

    told = await patient.fail()

    assert told.reason == "circuit-open"
    assert told.retry_after == 4.0
    assert patient.clock.at == NOW


async def test_nobody_waits_for_a_circuit_that_stays_open_for_longer(patient: Stage) -> None:
    patient.mints.answers.extend(
        [MintError("x"), MintError("x", reason="circuit-open", retry_after=20.0)]
    )

    told = await patient.fail()

    assert told.reason == "circuit-open"
    assert patient.clock.at - NOW == pytest.approx(1.0)


async def test_after_an_outage_the_next_one_is_waited_for_again(patient: Stage) -> None:
    patient.mints.answers.extend(MintError("x") for _ in range(20))
    await patient.fail()
    patient.mints.answers.clear()
    patient.clock.at += 60.0
    cached = await patient.tokens.get(ONE)
    patient.tokens.refused(ONE, cached.generation)
    patient.mints.answers.append(MintError("x"))

    assert (await patient.tokens.get(ONE)).generation == cached.generation + 1


@pytest.mark.parametrize(
    "error",
    [
        InstallationRefusedError("x"),
        AppKeyRefusedError("x"),
        MintError("x", reason="status-4xx"),
        MintError("x", reason="redirect", retry_after=1.0),
        MintError("x", reason="malformed"),
        MintError("x", reason="no-token"),
        MintError("x", reason="too-large"),
        MintError("x", reason="wrong-installation"),
        MintError("x", reason="expired"),
        MintError("x", reason="loop"),
    ],
    ids=lambda error: error.reason,
)
async def test_what_does_not_pass_by_itself_is_told_at_once(
    patient: Stage, error: MintError
) -> None:
    patient.mints.answers.append(error)

    told = await patient.fail()

    assert type(told) is type(error)
    assert patient.clock.at == NOW
    assert len(patient.mints.asked) == 1


async def test_a_4xx_that_passes_is_waited_for(patient: Stage) -> None:
    patient.mints.answers.append(MintError("x", reason="status-4xx", is_transient=True))

    assert await patient.get() == "crs_2"


async def test_an_api_that_says_when_to_come_back_is_not_asked_before(patient: Stage) -> None:
    patient.mints.answers.append(MintError("x", retry_after=4.0))

    assert await patient.get() == "crs_2"
    assert patient.clock.at - NOW == pytest.approx(4.0)


async def test_an_api_that_wants_to_be_left_alone_for_long_is_told_at_once(patient: Stage) -> None:
    patient.mints.answers.append(MintError("x", retry_after=60.0))

    told = await patient.fail()

    assert told.retry_after == pytest.approx(60.0)
    assert patient.clock.at == NOW


async def test_ten_thousand_installations_do_not_renew_together(stage: Stage) -> None:
    chance = random.Random(1)
    tokens = TokenCache(
        mint=stage.mints,
        config=TokensConfig(),
        now=stage.clock,
        random=chance.random,
        watcher=stage.heard,
    )

    due = [(await tokens.get(TokenKey(f"in-{n}"))).due_at for n in range(10_000)]

    # Spread over two minutes of the five, and no second of them with more than its share.
    assert max(due) - min(due) == pytest.approx(0.4 * 300, rel=0.05)
    assert max(Counter(int(at) for at in due).values()) < 3 * 10_000 / 120


# -- what other replicas are told, and what they tell ----------------------------------------------


async def test_a_refused_token_is_told_of_by_its_fingerprint(stage: Stage) -> None:
    cached = await stage.tokens.get(ONE)

    stage.tokens.refused(ONE, cached.generation)
    stage.tokens.refused(ONE, cached.generation)

    assert stage.dropped == [(ONE, cached.token.fingerprint)]


async def test_what_an_operator_drops_is_told_of_whether_it_is_here_or_not(stage: Stage) -> None:
    stage.tokens.invalidate(ONE)
    stage.tokens.block(TWO)

    assert stage.dropped == [(ONE, None), (TWO, None)]


async def test_what_another_replica_saw_refused_is_forgotten_and_not_told_again(
    stage: Stage,
) -> None:
    cached = await stage.tokens.get(ONE)

    assert stage.tokens.invalidate_locally(ONE, cached.token.fingerprint)
    assert await stage.get() == "crs_2"
    assert stage.dropped == []


async def test_a_newer_token_than_the_one_refused_elsewhere_stays(stage: Stage) -> None:
    await stage.get()

    assert not stage.tokens.invalidate_locally(ONE, "0123456789ab")
    assert not stage.tokens.invalidate_locally(TWO, "0123456789ab")
    assert await stage.get() == "crs_1"


async def test_what_another_replica_drops_is_minted_anew_even_if_it_is_on_its_way(
    stage: Stage,
) -> None:
    stage.mints.gate.clear()
    waiters = stage.ask(1)
    await stage.all_waiting(waiters)

    stage.tokens.invalidate_locally(ONE)
    stage.mints.gate.set()
    [cached] = await asyncio.gather(*waiters)

    assert cached.token.secret.reveal() == "crs_2"
    assert stage.dropped == []


# -- at hand --------------------------------------------------------------------------------------


async def test_a_fresh_token_is_at_hand_and_counts_as_looked_up(stage: Stage) -> None:
    assert stage.tokens.get_fresh(ONE) is None
    cached = await stage.tokens.get(ONE)

    assert stage.tokens.get_fresh(ONE) is cached
    assert stage.tokens.get_fresh(TWO) is None
    assert stage.heard.lookups == ["dead", "fresh"]


async def test_what_is_due_dropped_or_blocked_is_not_at_hand(stage: Stage) -> None:
    cached = await stage.tokens.get(ONE)
    stage.clock.at = cached.due_at
    assert stage.tokens.get_fresh(ONE) is None

    stage.clock.at = NOW
    stage.tokens.block(ONE)
    assert stage.tokens.get_fresh(ONE) is None

    stage.tokens.unblock(ONE)
    stage.tokens.invalidate(ONE)
    assert stage.tokens.get_fresh(ONE) is None


async def test_nothing_is_at_hand_when_the_clock_was_set_back(stage: Stage) -> None:
    await stage.tokens.get(ONE)

    stage.clock.at = NOW - 60

    assert stage.tokens.get_fresh(ONE) is None


async def test_a_token_that_was_at_hand_was_used(stage: Stage) -> None:
    stage.make(TokensConfig(max_entries=2))
    await stage.get(ONE)
    await stage.get(TWO)

    assert stage.tokens.get_fresh(ONE) is not None
    await stage.get(TokenKey("in-3"))

    assert {key.installation for key, _ in stage.tokens} == {"in-1", "in-3"}


# -- invented installations -----------------------------------------------------------------------


class Listed:
    """A `InstallationListing` of what a test has laid out."""

    def __init__(self, *installations: str) -> None:
        self.there = set(installations)
        self.asked = 0
        self._seen: set[str] = set()
        self.failure: MintError | None = None

    def knows(self, installation: str) -> bool:
        return installation in self._seen

    async def look_up(self, _installation: str) -> None:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        self._seen = set(self.there)


def listing_on(stage: Stage, *installations: str) -> Listed:
    listed = Listed(*installations)
    stage.tokens = TokenCache(
        mint=stage.mints,
        config=TokensConfig(),
        now=stage.clock,
        random=lambda: 0.0,
        watcher=stage.heard,
        listing=listed,
    )
    return listed


async def invent(stage: Stage, number: int, *, start: int = 0) -> list[MintError]:
    """Ask for installations that nobody has heard of."""
    found = []
    for each in range(start, start + number):
        stage.mints.answers.append(InstallationRefusedError("x"))
        found.append(await stage.fail(TokenKey(f"invented-{each}")))
    stage.mints.answers.clear()
    return found


async def test_invented_installations_are_rationed_over_all_of_them(stage: Stage) -> None:
    listing_on(stage)

    found = await invent(stage, 500)

    assert len(stage.mints.asked) == 50
    assert Counter(type(error) for error in found) == {
        InstallationRefusedError: 50,
        MintRationedError: 450,
    }
    assert found[-1].retry_after == 1.0


async def test_what_is_rationed_is_not_remembered(stage: Stage) -> None:
    await invent(stage, 60)
    stage.clock.at += 1.0

    assert await stage.get(TokenKey("invented-59")) == "crs_51"


async def test_without_a_list_the_ration_is_all_there_is(stage: Stage) -> None:
    await invent(stage, 50)

    assert type(await stage.fail(ONE)) is MintRationedError
    stage.clock.at += 1.0
    assert await stage.get(ONE) == "crs_51"


async def test_an_installation_that_is_listed_needs_no_ration(stage: Stage) -> None:
    listed = listing_on(stage, "in-1")
    await invent(stage, 100)

    assert await stage.get(ONE) == "crs_51"
    assert listed.asked == 50


async def test_an_installation_that_had_a_token_needs_no_ration(stage: Stage) -> None:
    cached = await stage.tokens.get(ONE)
    await invent(stage, 100)
    stage.tokens.refused(ONE, cached.generation)

    assert await stage.get(ONE) == "crs_52"


async def test_an_installation_that_was_refused_needs_the_ration_again(stage: Stage) -> None:
    cached = await stage.tokens.get(ONE)
    stage.tokens.refused(ONE, cached.generation)
    stage.mints.answers.append(InstallationRefusedError("x"))
    await stage.fail(ONE)
    await invent(stage, 100)
    stage.clock.at += 31.0
    await invent(stage, 100, start=100)

    assert type(await stage.fail(ONE)) is MintRationedError


async def test_the_apps_own_token_needs_no_ration(stage: Stage) -> None:
    await invent(stage, 100)

    assert await stage.get(TokenKey(None)) == "crs_51"


async def test_a_new_installation_is_served_while_there_is_a_ration(stage: Stage) -> None:
    listed = listing_on(stage)
    await invent(stage, 49)

    assert await stage.get(TokenKey("new")) == "crs_50"
    assert listed.asked == 0


async def test_a_list_that_cannot_be_had_lists_nobody(stage: Stage) -> None:
    listed = listing_on(stage, "in-1")
    listed.failure = MintTimeoutError("x")
    await invent(stage, 50)

    assert type(await stage.fail(ONE)) is MintRationedError


async def test_an_outage_uses_up_no_ration(stage: Stage) -> None:
    for number in range(100):
        stage.mints.answers.append(MintTimeoutError("x"))
        await stage.fail(TokenKey(f"unreached-{number}"))

    assert await stage.get(TWO) == "crs_101"


async def test_many_first_requests_of_listed_installations_are_minted_together(
    stage: Stage,
) -> None:
    names = [f"in-{number}" for number in range(300)]
    listing_on(stage, *names)
    stage.mints.gate.clear()

    asked = [stage.ask(1, TokenKey(name))[0] for name in names]
    while len(stage.mints.asked) < len(names):  # noqa: ASYNC110  # no event tells
        await asyncio.sleep(0)
    stage.mints.gate.set()

    assert len({cached.generation for cached in await asyncio.gather(*asked)}) == 300


async def test_many_first_requests_of_unlisted_installations_take_turns(stage: Stage) -> None:
    listing_on(stage)
    stage.mints.answers.extend(InstallationRefusedError("x") for _ in range(300))

    asked = [stage.ask(1, TokenKey(f"invented-{number}"))[0] for number in range(300)]
    done = await asyncio.gather(*asked, return_exceptions=True)

    assert 50 <= len(stage.mints.asked) < 70
    assert Counter(map(type, done)).keys() == {InstallationRefusedError, MintRationedError}


async def test_the_ration_is_told_once(stage: Stage) -> None:
    await invent(stage, 60)

    assert stage.heard.mints.count(("MintRationedError", TokenKey("invented-55"))) == 1
