"""Who a caller is, and what is his to ask for."""

from __future__ import annotations

import asyncio
import io
import json
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.config.inbound_models import CallerConfig
from icr_proxy.config.models import LogsConfig
from icr_proxy.errors import CallerUnauthenticatedError, PolicyDeniedError
from icr_proxy.http1.headers import Header, fields_of
from icr_proxy.observability.log import LineBuffer, Threshold, build_log
from icr_proxy.policy.caller_auth import MOST_HELD, AuthThrottle, Callers, KnownCaller, hash_of
from icr_proxy.policy.operations import match
from tests.support.app_fixture import Clock

ONE = CallerConfig(
    name="one", keys=(hash_of("icrp_one"), hash_of("icrp_new")), certificates=("dns:one",)
)
TWO = CallerConfig(
    name="two", keys=(hash_of("icrp_two"),), certificates=("cn:two", "uri:spiffe://x/two")
)
SHUT_OUT = CallerConfig(name="three")


def basic(text: bytes) -> bytes:
    return b"Basic " + b64encode(text)


def recognise(*headers: Header, names: tuple[str, ...] = (), userinfo: bool = False) -> str:
    return (
        Callers((ONE, TWO, SHUT_OUT), userinfo=userinfo).recognise(fields_of(headers), names).name
    )


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        pytest.param([(b"Authorization", b"Bearer icrp_one")], "one", id="key"),
        pytest.param([(b"authorization", b"bEARER \t icrp_new ")], "one", id="new key"),
        pytest.param([(b"Proxy-Authorization", b"Bearer icrp_two")], "two", id="to the proxy"),
        pytest.param(
            [(b"Authorization", b"Bearer other"), (b"Proxy-Authorization", b"Bearer icrp_two")],
            "two",
            id="to the proxy, beside what is not",
        ),
        pytest.param([(b"Authorization", basic(b":icrp_one"))], "one", id="password"),
        pytest.param([(b"Authorization", basic(b"one:icrp_one"))], "one", id="name and password"),
        pytest.param(
            [(b"Proxy-Authorization", basic(b"two:icrp_two"))], "two", id="HTTP_PROXY with a user"
        ),
    ],
)
def test_a_key_says_who_it_is(headers: list[Header], name: str) -> None:
    assert recognise(*headers) == name


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param([], "missing", id="nothing"),
        pytest.param([(b"X-Key", b"Bearer icrp_one")], "missing", id="elsewhere"),
        pytest.param([(b"Authorization", b"")], "malformed", id="empty"),
        pytest.param([(b"Authorization", b"Bearer")], "malformed", id="no key"),
        pytest.param([(b"Authorization", b"Bearer ")], "malformed", id="empty key"),
        pytest.param([(b"Authorization", b"icrp_one")], "malformed", id="no scheme"),
        pytest.param([(b"Authorization", b"Bearer icrp_one x")], "malformed", id="two words"),
        pytest.param([(b"Authorization", b"Digest icrp_one")], "malformed", id="other scheme"),
        pytest.param([(b"Authorization", basic(b"one:"))], "malformed", id="no password"),
        pytest.param([(b"Authorization", b"Basic ???")], "malformed", id="not base64"),
        pytest.param([(b"Authorization", b"Bearer icrp_one")] * 2, "malformed", id="twice"),
        pytest.param([(b"Authorization", b"Bearer icrp_on")], "unknown", id="too short"),
        pytest.param([(b"Authorization", b"Bearer icrp_onee")], "unknown", id="too long"),
        pytest.param([(b"Authorization", b"Bearer ICRP_ONE")], "unknown", id="capitals"),
        pytest.param(
            [(b"Authorization", b"Bearer " + hash_of("icrp_one").encode())], "unknown", id="hash"
        ),
        pytest.param([(b"Authorization", basic(b"two:icrp_one"))], "unknown", id="another's name"),
        pytest.param([(b"Authorization", basic(b"in-1:icrp_one"))], "unknown", id="a tag untaken"),
        pytest.param(
            [(b"Authorization", b"Bearer icrp_one"), (b"Proxy-Authorization", b"Bearer x")],
            "unknown",
            id="what is meant for the proxy counts",
        ),
    ],
)
def test_who_is_not_known_is_not_let_in(headers: list[Header], reason: str) -> None:
    with pytest.raises(CallerUnauthenticatedError) as caught:
        recognise(*headers)

    assert caught.value.reason == reason


def test_nobody_hears_what_was_wrong() -> None:
    said = set()
    for headers in ([], [(b"Authorization", b"Bearer x")], [(b"Authorization", b"?")]):
        with pytest.raises(CallerUnauthenticatedError) as caught:
            recognise(*headers)
        said.add(caught.value.detail)

    assert len(said) == 1


def test_beside_a_key_the_user_may_be_the_installation_if_the_listener_takes_that() -> None:
    header = (b"Authorization", basic(b"in-1:icrp_one"))

    assert recognise(header, userinfo=True) == "one"


def test_a_user_towards_the_proxy_is_never_an_installation() -> None:
    with pytest.raises(CallerUnauthenticatedError):
        recognise((b"Proxy-Authorization", basic(b"in-1:icrp_one")), userinfo=True)


@given(
    values=st.lists(
        st.tuples(
            st.sampled_from([b"Authorization", b"Proxy-Authorization", b"X-Other"]),
            st.one_of(
                st.binary(max_size=40),
                st.binary(max_size=20).map(lambda text: b"Bearer " + text),
                st.binary(max_size=20).map(basic),
            ),
        ),
        max_size=4,
    ),
    userinfo=st.booleans(),
)
def test_no_bytes_let_anybody_in_and_none_break_anything(
    values: list[Header], *, userinfo: bool
) -> None:
    with pytest.raises(CallerUnauthenticatedError):
        recognise(*values, userinfo=userinfo)


# -- certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "headers", "name"),
    [
        pytest.param(("dns:one",), [], "one", id="certificate"),
        pytest.param(("dns:x", "cn:two", "uri:spiffe://x/two"), [], "two", id="several names"),
        pytest.param(("dns:one",), [(b"Authorization", b"Bearer icrp_one")], "one", id="both"),
        pytest.param(
            ("dns:one",), [(b"Authorization", b"Bearer dummy")], "one", id="and what is no key"
        ),
        pytest.param(
            ("dns:x",), [(b"Authorization", b"Bearer icrp_one")], "one", id="a stranger's, and key"
        ),
    ],
)
def test_a_certificate_says_who_it_is(
    names: tuple[str, ...], headers: list[Header], name: str
) -> None:
    assert recognise(*headers, names=names) == name


@pytest.mark.parametrize(
    ("names", "headers", "reason"),
    [
        pytest.param(("dns:x",), [], "certificate", id="a stranger's"),
        pytest.param(("cn:one",), [], "certificate", id="the name, of another kind"),
        pytest.param(("dns:one", "cn:two"), [], "conflict", id="of two callers"),
        pytest.param(
            ("dns:one",), [(b"Authorization", b"Bearer icrp_two")], "conflict", id="another's key"
        ),
        pytest.param(
            ("dns:x",), [(b"Authorization", b"Bearer x")], "unknown", id="a stranger's, and no key"
        ),
    ],
)
def test_what_a_certificate_does_not_say(
    names: tuple[str, ...], headers: list[Header], reason: str
) -> None:
    with pytest.raises(CallerUnauthenticatedError) as caught:
        recognise(*headers, names=names)

    assert caught.value.reason == reason


# -- what is his to ask for -----------------------------------------------------------------------

RETIRE = match("POST", "/v1/retire")
LIST = match("GET", "/projects")


def known(**limits: Any) -> KnownCaller:
    return KnownCaller(CallerConfig(name="one", **limits))


def test_without_limits_anything_is() -> None:
    known().authorize(RETIRE, listener="127.0.0.1:1")
    known().authorize_installation("in-1")
    known().authorize_installation(None)


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"operations": ("projects.*",)}, id="operation"),
        pytest.param({"listeners": ("127.0.0.1:2",)}, id="listener"),
    ],
)
def test_what_is_not_his_to_ask(limits: dict[str, Any]) -> None:
    with pytest.raises(PolicyDeniedError, match="the caller one may not"):
        known(**limits).authorize(RETIRE, listener="127.0.0.1:1")


def test_what_is_his_to_ask() -> None:
    limited = known(operations=("projects.*",), listeners=("127.0.0.1:1",), installations=("in-1",))

    limited.authorize(LIST, listener="127.0.0.1:1")
    limited.authorize_installation("in-1")


@pytest.mark.parametrize(
    "installation",
    [pytest.param("in-2", id="another"), pytest.param(None, id="the app's own credential")],
)
def test_for_whom_he_may_not_act(installation: str | None) -> None:
    with pytest.raises(PolicyDeniedError, match="may not act for that installation"):
        known(installations=("in-1",)).authorize_installation(installation)


def test_callers_have_names() -> None:
    callers = Callers((ONE, TWO), userinfo=False)

    assert callers.named("two") is not None
    assert callers.named("nobody") is None


@dataclass
class Door:
    """A doorkeeper whose pauses end when the test says so."""

    clock: Clock = field(default_factory=Clock)
    counted: Counter[str] = field(default_factory=Counter)
    pauses: list[float] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stream: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        log = build_log(
            LogsConfig(format="json"),
            lines=LineBuffer(self.stream),
            threshold=Threshold("info"),
            now=self.clock,
        )
        self.keeper = AuthThrottle(
            log=log, count=lambda reason: self.counted.update([reason]), now=self.clock,
            pause=self.pause,
        )  # fmt: skip

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.over.wait()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


async def test_the_first_is_answered_at_once_and_the_next_later_and_later() -> None:
    door = Door()
    door.over.set()

    for _ in range(4):
        await door.keeper.reject("10.0.0.1", "unknown")

    assert door.pauses == [0.1, 0.2, 0.4]
    assert door.counted == {"unknown": 4}


async def test_only_so_many_wait_at_once() -> None:
    door = Door()
    await door.keeper.reject("10.0.0.1", "missing")

    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(door.keeper.reject("10.0.0.1", "missing")) for _ in range(MOST_HELD)
        ]
        await asyncio.sleep(0)
        await door.keeper.reject("10.0.0.1", "missing")

        assert not any(task.done() for task in waiting)
        assert door.keeper.held == MOST_HELD
        door.over.set()

    assert door.keeper.held == 0


async def test_whoever_goes_away_gives_up_his_place() -> None:
    door = Door()
    await door.keeper.reject("10.0.0.1", "missing")
    waiting = asyncio.ensure_future(door.keeper.reject("10.0.0.1", "missing"))
    await asyncio.sleep(0)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert door.keeper.held == 0


async def test_the_log_tells_who_and_why_and_now_and_then_how_many() -> None:
    door = Door()
    door.over.set()

    for _ in range(5):
        await door.keeper.reject("10.0.0.1", "unknown")
    door.clock.at += 2
    await door.keeper.reject("10.0.0.2", "certificate")

    told = [{key: line[key] for key in line if key not in ("ts", "event")} for line in door.lines]
    assert {line["event"] for line in door.lines} == {"caller.refused"}
    assert told == [
        {"level": "warning", "peer": "10.0.0.1", "reason": "unknown", "failures": 1,
         "delay_ms": 0, "unlogged": 0},
        {"level": "warning", "peer": "10.0.0.2", "reason": "certificate", "failures": 1,
         "delay_ms": 0, "unlogged": 4},
    ]  # fmt: skip
