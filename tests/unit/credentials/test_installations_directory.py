import asyncio
import gc
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from icr_proxy.credentials.installations import InstallationDirectory
from icr_proxy.errors import AppKeyRefusedError, MintError, MintTimeoutError

NOW = 1_700_000_000.0


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


class Api:
    """Gives the list that a test has laid out, as soon as its gate is open."""

    def __init__(self) -> None:
        self.installations = {"org-1": "in-1"}
        self.asked = 0
        self.failures: deque[BaseException] = deque()
        """What goes wrong with the next lists; all goes well when there is none."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def __call__(self) -> Mapping[str, str | None]:
        self.asked += 1
        self.begun.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.popleft()
        return {each: on for on, each in self.installations.items()}


@dataclass
class Stage:
    """A directory with all that surrounds it."""

    patience: float = 5.0
    clock: Clock = field(default_factory=Clock)
    api: Api = field(default_factory=Api)
    renewed: list[int] = field(default_factory=list)
    failed: list[MintError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory = InstallationDirectory(
            fetch=self.api,
            waiter_timeout=self.patience,
            now=self.clock,
            renewed=self.renewed.append,
            failed=self.failed.append,
        )

    async def lookup(self, organization: str = "org-1") -> str | None:
        return await self.directory.lookup(organization)

    async def fail(self, organization: str = "org-1") -> MintError:
        with pytest.raises(MintError) as caught:
            await self.lookup(organization)
        return caught.value

    def ask(self, number: int, organization: str = "org-1") -> list[asyncio.Task[str | None]]:
        loop = asyncio.get_running_loop()
        return [loop.create_task(self.lookup(organization), name="caller") for _ in range(number)]

    async def rest(self) -> None:
        """Wait until nothing goes on in the background."""
        if fetches():
            await asyncio.wait(fetches())


def fetches() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "list-installations"]


@pytest.fixture
async def complaints() -> list[dict[str, Any]]:
    """What the event loop would print."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
    return heard


@pytest.fixture
def stage() -> Stage:
    return Stage()


FAILURES = pytest.mark.parametrize(
    "failure", [MintError, RuntimeError], ids=["told", "a mistake of ours"]
)


# -- asking ---------------------------------------------------------------------------------------


async def test_nothing_is_asked_before_somebody_asks(stage: Stage) -> None:
    assert not stage.directory.knows("in-1")
    assert stage.api.asked == 0


async def test_an_organization_in_the_list_has_its_installation(stage: Stage) -> None:
    assert await stage.lookup() == "in-1"
    assert stage.renewed == [1]


async def test_an_organization_that_is_not_in_the_list_has_none(stage: Stage) -> None:
    assert await stage.lookup("org-9") is None
    assert stage.failed == []


async def test_an_app_without_installations_is_no_failure(stage: Stage) -> None:
    stage.api.installations.clear()

    assert await stage.lookup() is None
    assert stage.renewed == [0]


async def test_a_thousand_concurrent_finds_share_one_list(stage: Stage) -> None:
    stage.api.gate.clear()
    callers = stage.ask(1000)
    await stage.api.begun.wait()
    stage.api.gate.set()

    found = await asyncio.gather(*callers)

    assert (set(found), stage.api.asked) == ({"in-1"}, 1)


async def test_cancelling_one_caller_harms_no_other(stage: Stage) -> None:
    stage.api.gate.clear()
    first, *others = stage.ask(3)
    await stage.api.begun.wait()

    first.cancel()
    await asyncio.wait([first])
    stage.api.gate.set()

    assert await asyncio.gather(*others) == ["in-1", "in-1"]
    assert (first.cancelled(), stage.api.asked) == (True, 1)


async def test_a_caller_waits_no_longer_than_it_is_willing_to() -> None:
    stage = Stage(patience=0.01)
    stage.api.gate.clear()

    error = await stage.fail()
    stage.api.gate.set()
    await stage.rest()

    assert type(error) is MintTimeoutError
    assert stage.directory.knows("in-1")


async def test_the_way_back_is_known_as_far_as_the_list_is(stage: Stage) -> None:
    await stage.lookup()

    assert stage.directory.knows("in-1")
    assert not stage.directory.knows("in-9")


# -- asking again ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "asked"),
    [(0, 1), (299.9, 1), (300, 2), (86400, 2), (-1, 2)],
    ids=["new", "young", "old", "a day", "clock set back"],
)
async def test_an_old_list_is_renewed(stage: Stage, age: float, asked: int) -> None:
    await stage.lookup()

    stage.clock.at += age
    await stage.lookup()
    await stage.rest()

    assert stage.api.asked == asked


async def test_the_old_list_serves_while_a_new_one_is_fetched(stage: Stage) -> None:
    await stage.lookup()
    stage.api.installations["org-1"] = "in-2"
    stage.api.gate.clear()

    stage.clock.at += 300
    during = [await stage.lookup() for _ in range(3)]
    await stage.api.begun.wait()
    stage.api.gate.set()
    await stage.rest()

    assert during == ["in-1"] * 3
    assert (await stage.lookup(), stage.api.asked) == ("in-2", 2)


async def test_an_organization_that_left_is_not_found_any_more(stage: Stage) -> None:
    await stage.lookup()
    stage.api.installations = {"org-2": "in-2"}

    stage.clock.at += 300
    await stage.lookup()
    await stage.rest()

    assert await stage.lookup() is None
    assert not stage.directory.knows("in-1")


@pytest.mark.parametrize(
    ("age", "asked"),
    [(0, 1), (9.9, 1), (10, 2), (-1, 2)],
    ids=["at once", "soon", "later", "clock set back"],
)
async def test_invented_organizations_cause_no_storm(stage: Stage, age: float, asked: int) -> None:
    await stage.lookup("org-8")

    stage.clock.at += age
    found = [await stage.lookup(f"org-{number}") for number in range(10, 15)]

    assert found == [None] * 5
    assert stage.api.asked == asked


async def test_a_new_organization_is_found_without_waiting_for_the_renewal(stage: Stage) -> None:
    await stage.lookup()
    stage.api.installations["org-2"] = "in-2"

    stage.clock.at += 10

    assert await stage.lookup("org-2") == "in-2"


async def test_an_unknown_organization_joins_a_renewal_under_way(stage: Stage) -> None:
    await stage.lookup()
    stage.api.installations["org-2"] = "in-2"
    stage.api.gate.clear()
    stage.clock.at += 300
    await stage.lookup()

    [caller] = stage.ask(1, "org-2")
    stage.api.gate.set()

    assert (await caller, stage.api.asked) == ("in-2", 2)


# -- failing --------------------------------------------------------------------------------------


async def test_a_failure_is_told_to_all_who_wait_each_with_its_own(stage: Stage) -> None:
    stage.api.failures.append(AppKeyRefusedError("check the key"))

    told = await asyncio.gather(*stage.ask(3), return_exceptions=True)

    assert [(type(each), str(each)) for each in told] == [(AppKeyRefusedError, "check the key")] * 3
    assert len({id(each) for each in told}) == 3
    assert (stage.api.asked, len(stage.failed)) == (1, 1)


async def test_a_failure_is_remembered_for_as_long_as_nobody_may_ask_again(stage: Stage) -> None:
    stage.api.failures.append(MintError("no list"))
    await stage.fail()

    error = await stage.fail()
    stage.clock.at += 10

    assert (type(error), error.detail, error.retry_after) == (MintError, "no list", 10)
    assert (await stage.lookup(), stage.api.asked) == ("in-1", 2)


@FAILURES
async def test_a_list_that_cannot_be_renewed_stays_in_use(
    stage: Stage, failure: type[Exception]
) -> None:
    await stage.lookup()
    stage.api.failures.append(failure("no list"))

    stage.clock.at += 300
    await stage.lookup()
    await stage.rest()

    assert await stage.lookup() == "in-1"
    assert [type(each) for each in stage.failed] == [MintError]


async def test_nobody_is_told_that_there_is_none_when_that_is_not_known(stage: Stage) -> None:
    """It may have been installed a moment ago; a tool takes "there is none" for final."""
    await stage.lookup()
    stage.api.failures.append(MintError("no list"))
    stage.clock.at += 10

    errors = [await stage.fail("org-2"), await stage.fail("org-2")]

    assert [(type(each), each.detail) for each in errors] == [(MintError, "no list")] * 2
    assert (await stage.lookup(), stage.api.asked) == ("in-1", 2)


async def test_a_failure_is_forgotten_with_the_next_list(stage: Stage) -> None:
    stage.api.failures.append(MintError("no list"))
    await stage.fail()
    stage.clock.at += 10
    await stage.lookup()

    assert await stage.lookup("org-9") is None


async def test_a_mistake_of_ours_is_a_failure_like_others(stage: Stage) -> None:
    mistake = RuntimeError("a mistake of ours: crs_0123")
    stage.api.failures.append(mistake)

    errors = [await stage.fail(), await stage.fail()]

    assert [type(each) for each in errors] == [MintError] * 2
    assert "crs" not in "".join(each.detail for each in errors)
    assert [each.__cause__ for each in stage.failed] == [mistake]


async def test_a_time_out_of_the_list_is_not_the_callers(stage: Stage) -> None:
    stage.api.failures.append(TimeoutError("inside"))

    assert type(await stage.fail()) is MintError


@FAILURES
async def test_a_failure_that_nobody_waits_for_is_not_complained_about(
    stage: Stage, complaints: list[Any], failure: type[Exception]
) -> None:
    await stage.lookup()
    stage.api.failures.append(failure("no list"))

    stage.clock.at += 300
    await stage.lookup()
    await stage.rest()
    await asyncio.sleep(0)
    gc.collect()

    assert complaints == []


@FAILURES
async def test_callers_that_left_before_a_failure_are_not_complained_about(
    stage: Stage, complaints: list[Any], failure: type[Exception]
) -> None:
    """`asyncio.shield` would report it for each of them (python/cpython#156321)."""
    stage.api.gate.clear()
    stage.api.failures.append(failure("no list"))
    callers = stage.ask(3)
    await stage.api.begun.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)

    stage.api.gate.set()
    await stage.rest()
    gc.collect()

    assert complaints == []


# -- stopping -------------------------------------------------------------------------------------


async def test_stopping_leaves_no_task(stage: Stage, complaints: list[Any]) -> None:
    await stage.lookup()
    stage.api.gate.clear()
    stage.clock.at += 300
    await stage.lookup()
    await stage.api.begun.wait()

    await stage.directory.stop()
    gc.collect()

    assert (fetches(), complaints, stage.failed) == ([], [], [])
    assert await stage.directory.lookup("org-1") == "in-1"
    await stage.directory.stop()


async def test_stopping_what_does_nothing_does_nothing(stage: Stage) -> None:
    await stage.directory.stop()

    assert stage.api.asked == 0


async def test_whoever_waits_is_told_of_the_stop_and_not_cancelled(stage: Stage) -> None:
    stage.api.gate.clear()
    callers = stage.ask(2)
    await stage.api.begun.wait()

    await stage.directory.stop()
    told = await asyncio.gather(*callers, return_exceptions=True)

    assert [type(each) for each in told] == [MintError] * 2


async def test_a_list_that_was_stopped_is_not_taken_for_an_empty_one(stage: Stage) -> None:
    stage.api.gate.clear()
    callers = stage.ask(1)
    await stage.api.begun.wait()
    await stage.directory.stop()
    await asyncio.gather(*callers, return_exceptions=True)

    stage.api.gate.set()

    assert await stage.lookup() == "in-1"


# -- installations --------------------------------------------------------------------------------


async def test_an_installation_is_known_once_it_was_looked_up(stage: Stage) -> None:
    assert not stage.directory.knows("in-1")

    await stage.directory.look_up("in-1")

    assert stage.directory.knows("in-1")
    assert not stage.directory.knows("in-9")


async def test_a_known_installation_is_not_asked_for_again(stage: Stage) -> None:
    await stage.directory.look_up("in-1")
    stage.clock.at += 3600.0
    await stage.directory.look_up("in-1")

    assert stage.api.asked == 1


async def test_an_unknown_installation_is_asked_for_again_after_ten_seconds(stage: Stage) -> None:
    await stage.directory.look_up("in-9")
    await stage.directory.look_up("in-9")
    before = stage.api.asked
    stage.clock.at += 10.0
    stage.api.installations["org-9"] = "in-9"
    await stage.directory.look_up("in-9")

    assert (before, stage.api.asked) == (1, 2)
    assert stage.directory.knows("in-9")


async def test_a_list_that_cannot_be_had_is_told(stage: Stage) -> None:
    stage.api.failures.append(MintError("x"))

    with pytest.raises(MintError, match="x"):
        await stage.directory.look_up("in-1")
