"""A decision holds however the API reads the path: models of servers, and Node itself, are asked.

The attack: `/v1/retire/%20/..` reached `POST /v1/retire` in spite of a rule that denies it, because
the API resolves dot segments in another order than the proxy did.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.config.inbound_models import CallerConfig, PolicyConfig, RuleConfig
from icr_proxy.errors import BadRequestError
from icr_proxy.policy import paths
from icr_proxy.policy import router as routes
from icr_proxy.policy.caller_auth import hash_of
from icr_proxy.policy.router import Router, SelectorReader, Target, take_apart
from tests.fuzz.pathmodels import MODELS, make_target, missed, play
from tests.support.app_fixture import (
    Visit,
    call,
    config_for,
    ok,
    request_head,
    running,
    scripted_upstream,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

TARGETS = 5000
NODE_TARGETS = 20_000
NODE = shutil.which("node")
NODE_REQUIRED = os.environ.get("ICR_TEST_ALL_CLIENTS") == "1"
ASK_NODE = """
const targets = JSON.parse(require("fs").readFileSync(0, "utf8"));
const read = (t) => { try { return new URL(t, "http://api").pathname } catch { return null } };
const decoded = (p) => { try { return decodeURIComponent(p) } catch { return null } };
console.log(JSON.stringify(targets.map((t) => { const p = read(t); return [p, p && decoded(p)] })));
"""


def names(target: Target) -> set[str]:
    return {target.operation.name, *(reading.operation.name for reading in target.others)}


def is_refused(target: Target) -> bool:
    return target.fault is not None or target.may_reach_app


# -- what servers read ----------------------------------------------------------------------------


def test_no_model_of_a_server_reads_what_was_not_decided_on() -> None:
    random, counts = Random(9), Counter[str]()

    found = [each for _ in range(TARGETS) for each in play(random, counts=counts)]

    assert found == []
    assert min(counts["refused"], counts["decided"]) > TARGETS / 10


@pytest.mark.parametrize("blind", ["readings", "has_dot_segment"])
def test_the_models_find_what_was_not_decided_on(
    blind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who watches the judges: with one reading, or without looking for dots, they must object."""
    stand_ins: dict[str, object] = {
        "readings": lambda target: (paths.decision_path(target),),
        "has_dot_segment": lambda _: False,
    }
    monkeypatch.setattr(routes, blind, stand_ins[blind])
    random, counts = Random(9), Counter[str]()

    found = [each for _ in range(TARGETS) for each in play(random, counts=counts)]

    assert len(found) > 10


@pytest.mark.skipif(NODE is None and not NODE_REQUIRED, reason="node is not installed")
def test_node_reads_nothing_that_was_not_decided_on() -> None:
    random = Random(23)
    targets = [make_target(random) for _ in range(NODE_TARGETS)]

    done = subprocess.run(
        [NODE or "node", "-e", ASK_NODE],
        input=json.dumps(targets),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)

    assert len(answers) == NODE_TARGETS
    found = [
        each
        for target, routed in zip(targets, answers, strict=True)
        for each in missed("POST", target, filter(None, routed))
    ]
    assert found == []


# -- dot segments ---------------------------------------------------------------------------------

DOTTED = [
    "/v1/retire/..",
    "/v1/retire/.",
    "/./v1/retire",
    "/v1//../retire",
    "/v1/retire/%2e%2E",
    "/v1/retire/.%2e/",
    "/v1/retire/%252e%252e",
    "/v1/retire/%25252e.",
    "/v1/retire/..;/",
    "/v1/retire/..;x=1/y",
    "/v1/retire/;/..",
    "/v1/retire/..%3b/",
    "/v1/retire/..%2fx",
    "/v1/retire/x%2f..%2f..",
    "/v1/retire/x%5c..",
    "/v1/retire\\..",
    "/v1/retire/..\\x",
    "/v1/retire/%20/..",
    "/v1/retire/..%20",
    "/v1/retire/%20..",
    "/v1/retire/.%09.",
    "/v1/retire/%0d.%0a.",
    "/v1/retire/..%00",
    "/v1/retire/%09..%00x",
    "/v1/retire/..%00.json",
    "/v1/retire/..%23",
    "/v1/retire/..%3fx",
    "/v1/retire%3f/..",
    "/v1/retire/...",
    "/v1/retire/.../..",
    "/v1/retire/%c0%ae%c0%ae",
    "/v1/retire/%c0%ae./",
    "/v1/retire/%EF%BC%8E%EF%BC%8E",
    "/v1/retire/%E2%80%A5",
    "/v1/retire/%E2%80%A4.",
    "/v1/retire/.%e2%80%8b.",
    "/v1/retire/..%ff",
    "/v1/retire/%u002e%u002e",
    "/v1/retire/%U002E.",
    "/v1/retire/.%u002e;x",
    "/..",
    "//..",
    "/v1/retire/..?x=1",
]


@pytest.mark.parametrize("target", DOTTED)
def test_a_dot_segment_is_refused_in_every_disguise(target: str) -> None:
    router = Router(
        tags=SelectorReader(installation="X", organization="Y", kinds=("header",)),
        base_url="https://a",
    )

    with pytest.raises(BadRequestError):
        router.check(router.read_target("POST", target))


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "*",
        "/projects/v1.2",
        "/projects/.well-known",
        "/projects/..x",
        "/projects/x..y",
        "/projects/x.",
        "/projects?next=/../x",
        "/projects/ICR%2F1",
        "/projects/ICR%252F1",
        "/projects/foo%20bar%2Fbaz",
        "/projects/caf%C3%A9%20x%2Fy",
        "/projects/100%",
        "/projects/a;b=.c",
        "//projects//x/",
        "/projects/" + "%E6%9D%B1" * 60,
        "/projects/" + "a" * 400 + "%20b%2Fc",
        "/projects/" + "a" * 8000,
        "/projects/%20?q=" + "%2e%2e/" * 900,
    ],
)
def test_what_has_no_dot_segment_passes(target: str) -> None:
    assert not is_refused(take_apart("GET", target))


# -- of several readings, the strictest -----------------------------------------------------------

TWO_READINGS = [
    "/v1/retire;/x",
    "/v1/retire;x/accounts",
    "/v1/re%74ire",
    "/v1/re%2574ire",
    "/v1//retire",
    "//v1/retire",
    "//x/v1/retire",
    "\\v1\\retire",
    "/v1%2fretire",
    "/v1%5cretire",
    "/v1%252fretire",
    "/V1/Retire",
    "/v1/retire/",
    "/v1/retire.",
    "/v1/retire%20",
    "/v1/retire%00/accounts",
    "/v1/retire%0a",
    "/v1/retire%23/accounts",
    "/v1/retire%3f/accounts",
    "/v1/%EF%BD%92etire",
    "/v1%2F%72etire;",
    "/v1/retire%c0%80",
    "/v1%c0%afretire",
    "/v1/%u0072etire",
]


@pytest.mark.parametrize("target", TWO_READINGS)
def test_the_operation_is_the_strictest_reading(target: str) -> None:
    taken = take_apart("POST", target)

    assert (taken.operation.name, taken.operation.changes_state) == ("v1.retire", True)
    assert not is_refused(taken)


def test_letters_in_another_case_may_be_another_name() -> None:
    """`/projects/Internal` is the project of that ID to a server that minds case."""
    assert names(take_apart("GET", "/projects/Internal")) == {
        "projects.internal.list",
        "projects.get",
    }
    assert names(take_apart("GET", "/carbonCredits/projects/X")) == {"credits.projects.get"}
    assert names(take_apart("GET", "/carboncredits/projects/x")) == {
        "credits.projects.get",
        "unknown",
    }


def test_an_empty_segment_fills_no_placeholder() -> None:
    assert "organizations.inventory.list" not in {
        reading.operation.name
        for reading in take_apart("GET", "/organizations//inventory").others
        if "//" in reading.path
    }


KEY = "icrp_readings"
CLERK = CallerConfig(
    name="clerk", keys=(hash_of(KEY),), operations=("v1.entities.accounts.create",)
)
DENY: dict[str, Any] = {
    "policy": PolicyConfig(
        rules=(RuleConfig(name="no-retire", action="deny", operations=("v1.retire",)),)
    )
}
DENY_PATH: dict[str, Any] = {
    "policy": PolicyConfig(
        rules=(RuleConfig(name="no-retire", action="deny", paths=("/v1/retire/**",)),)
    )
}
ALLOW: dict[str, Any] = {
    "policy": PolicyConfig(
        default="deny",
        rules=(
            RuleConfig(
                name="accounts", action="allow", operations=("v1.entities.accounts.create",)
            ),
        ),
    )
}
ALLOW_PATH: dict[str, Any] = {
    "policy": PolicyConfig(
        default="deny",
        rules=(RuleConfig(name="accounts", action="allow", paths=("/v1/*/accounts",)),),
    )
}


@pytest.mark.parametrize(
    ("sections", "targets"),
    [
        pytest.param(DENY, TWO_READINGS + DOTTED, id="denied operation"),
        pytest.param(DENY_PATH, TWO_READINGS + DOTTED, id="denied path"),
        pytest.param({"callers": (CLERK,)}, TWO_READINGS + DOTTED, id="caller's operations"),
        pytest.param(ALLOW, TWO_READINGS + DOTTED, id="allowed operations"),
        pytest.param(ALLOW_PATH, TWO_READINGS + DOTTED, id="allowed paths"),
        pytest.param(
            {"policy": PolicyConfig(read_only=True)}, TWO_READINGS + DOTTED, id="read-only"
        ),
    ],
)
async def test_no_rule_is_passed_by_another_reading(
    sections: dict[str, Any], targets: list[str]
) -> None:
    async def answer(visit: Visit, _: bytes) -> None:
        await visit.say(ok())

    key = f"Authorization: Bearer {KEY}\r\nContent-Length: 0\r\n"
    async with (
        scripted_upstream(answer) as api,
        running(config_for(api.url, **sections)) as proxy,
    ):
        answers = [
            await call(proxy.port, request_head("POST", target, extra=key)) for target in targets
        ]
        [*lines] = proxy.log("request.done")

    assert {answer.status for answer in answers} == {400, 403}
    assert api.heads == []
    assert all(line["changes_state"] for line in lines if "changes_state" in line)


@pytest.mark.parametrize("target", ["/v1/o1/accounts", "/v1/O-1/accounts/", "/v1/o%2D1/accounts"])
@pytest.mark.parametrize(
    "sections",
    [DENY, ALLOW, ALLOW_PATH, {"callers": (CLERK,)}],
    ids=["deny", "allow", "allow path", "caller"],
)
async def test_what_is_allowed_in_every_reading_passes_as_it_was_sent(
    sections: dict[str, Any], target: str
) -> None:
    async def answer(visit: Visit, _: bytes) -> None:
        await visit.say(ok())

    key = f"Authorization: Bearer {KEY}\r\nContent-Length: 0\r\n"
    async with (
        scripted_upstream(answer) as api,
        running(config_for(api.url, **sections)) as proxy,
    ):
        answered = await call(proxy.port, request_head("POST", target, extra=key))

    assert answered.status == 200
    assert api.heads[0].startswith(f"POST {target} ".encode())


# -- what it costs --------------------------------------------------------------------------------

LONG = 8000
COSTLY = {
    "three bytes that become eighteen": "%EF%B7%BA" * (LONG // 9),
    "slashes": "/" * LONG,
    "parameters": "/;" * (LONG // 2),
    "semicolons": ";" * LONG,
    "percent signs": "%" * LONG,
    "nested escapes": "%" + "25" * (LONG // 2),
    "nested escapes, many": "%252525" * (LONG // 7),
    "dots": "." * LONG,
    "dot segments": "/.." * (LONG // 3),
    "wide escapes": "%u0061" * (LONG // 6),
    "backslashes": "\\" * LONG,
    "overlong": "%c0%af" * (LONG // 6),
    "blanks": "%20" * (LONG // 3),
    "everything": "%2e;//\\%00%EF%B7%BA%u0061%2561." * (LONG // 31),
    "segments": "/a" * (LONG // 2),
    "app, again and again": "//app" * (LONG // 5),
}


def steps(act: Callable[[], object]) -> int:
    """Count the calls of Python and C functions: a measure that no other program disturbs."""
    count = 0

    def note(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("form", ["/{}", "/~inst-1/{}", "http://api.example/{}", "/x?{}"])
@pytest.mark.parametrize("kind", COSTLY)
def test_a_long_target_costs_at_most_ten_times_a_plain_one(kind: str, form: str) -> None:
    def reads(target: str) -> Callable[[], object]:
        tags = SelectorReader(installation="X", organization="Y", kinds=("header", "path"))
        router = Router(tags=tags, base_url="https://api.example")
        return lambda: router.read_target("GET", target)

    plain, costly = reads(form.format("a" * LONG)), reads(form.format(COSTLY[kind]))

    assert steps(costly) <= 10 * steps(plain)


@pytest.mark.parametrize("kind", COSTLY)
def test_the_longest_path_that_is_looked_at_costs_a_bounded_number_of_steps(kind: str) -> None:
    target = ("/" + COSTLY[kind])[: paths.ODD_MOST]

    assert steps(lambda: take_apart("GET", target)) < paths.WORK_MOST / 2


def test_a_path_with_too_many_readings_is_refused() -> None:
    target = "/x%252fy%20%C3%A9;a=1//b%5cc%3f"

    assert paths.readings(target) is None
    assert take_apart("GET", target).fault is not None
    assert paths.is_app_path(target)


def test_there_are_models_of_many_servers() -> None:
    assert len(MODELS) == len({model.__name__ for model in MODELS}) > 10
