"""Every way to name an installation, from the caller's bytes to what the API received."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.config.inbound_models import PolicyConfig
from icr_proxy.emulator.server import Emulator
from icr_proxy.emulator.settings import EmulatorSettings, Fault
from tests.support.app_fixture import (
    RawAnswer,
    RunningProxy,
    app_key_pem,
    call,
    proxy_before,
    request_head,
)

if TYPE_CHECKING:
    from icr_proxy.emulator.registry.entities import Installation

ECHO = "/_emulator/echo/x"
EVERY_TAG = ("header", "path", "userinfo")
ORGANIZATION = "X-ICR-Organization-Id"


def installation(emulator: Emulator, number: int = 0) -> Installation:
    return list(emulator.world.installations.values())[number]


def user(name: str, password: str = "") -> str:
    return f"Authorization: Basic {b64encode(f'{name}:{password}'.encode()).decode()}\r\n"


async def ask(
    proxy: RunningProxy, target: str, *, tag: str | None = None, extra: str = ""
) -> RawAnswer:
    return await call(proxy.port, request_head(target=target, tag=tag, extra=extra))


def served(answer: RawAnswer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def test_an_organization_header_finds_the_installation(emulator: Emulator) -> None:
    one = installation(emulator, 1)

    async with proxy_before(emulator) as proxy:
        answer = await ask(proxy, ECHO, extra=f"{ORGANIZATION}: {one.organization.id}\r\n")

    arrived = served(answer)
    assert arrived["installationId"] == one.id
    assert ORGANIZATION.lower() not in [name.lower() for name, _ in arrived["headers"]]


async def test_an_organization_on_any_page_of_the_list_is_found() -> None:
    settings = EmulatorSettings(installations=250)

    async with (
        Emulator(settings, private_keys=[app_key_pem()]) as emulator,
        proxy_before(emulator) as proxy,
    ):
        last = installation(emulator, -1)
        answer = await ask(proxy, ECHO, extra=f"{ORGANIZATION}: {last.organization.id}\r\n")

    assert served(answer)["installationId"] == last.id


async def test_a_hundred_first_requests_fetch_the_list_once(emulator: Emulator) -> None:
    extra = f"{ORGANIZATION}: {installation(emulator).organization.id}\r\n"

    async with proxy_before(emulator) as proxy:
        answers = await asyncio.gather(*(ask(proxy, ECHO, extra=extra) for _ in range(100)))

    lists = [seen for seen in emulator.world.requests if seen.target.startswith("/app/inst")]
    pages = {seen.target for seen in lists if seen.method == "GET"}
    assert {answer.status for answer in answers} == {200}
    assert len([seen for seen in lists if seen.method == "GET"]) == len(pages)


async def test_an_organization_without_the_app_is_refused_and_asked_for_once(
    emulator: Emulator,
) -> None:
    async with proxy_before(emulator) as proxy:
        answers = [await ask(proxy, ECHO, extra=f"{ORGANIZATION}: no-such\r\n") for _ in range(5)]

    assert {answer.problem["code"] for answer in answers} == {"installation-refused"}
    assert [s.target for s in emulator.world.requests if "page=0" in s.target] == [
        "/app/installations?limit=100&page=0"
    ]


async def test_a_list_that_cannot_be_had_is_told_as_such(emulator: Emulator) -> None:
    emulator.world.faults.app.append(Fault(kind="status", status=503))

    async with proxy_before(emulator) as proxy:
        answer = await ask(proxy, ECHO, extra=f"{ORGANIZATION}: any\r\n")

    assert answer.problem["code"] == "mint-failed"


@pytest.mark.parametrize(
    ("rest", "arrives"),
    [
        pytest.param(ECHO, ECHO, id="plain"),
        pytest.param("/_emulator/echo/a%2Fb//c;d?x=%20&&y", None, id="byte-for-byte"),
        pytest.param("/_emulator/echo/~other/x", None, id="a-second-tilde-is-path"),
        pytest.param("/_emulator/echo/x?", None, id="empty-query"),
    ],
)
async def test_a_path_prefix_is_cut_off_and_the_rest_forwarded(
    emulator: Emulator, rest: str, arrives: str | None
) -> None:
    one = installation(emulator, 1)

    async with proxy_before(emulator, listener={"tags": EVERY_TAG}) as proxy:
        answer = await ask(proxy, f"/~{one.id}{rest}")

    arrived = served(answer)
    assert arrived["installationId"] == one.id
    assert arrived["target"] == (arrives or rest)


@pytest.mark.parametrize(
    "rest", ["/app/installations", "//app/x", "/%61pp/installations/token", "/x/../app"]
)
async def test_app_stays_closed_behind_a_path_prefix(emulator: Emulator, rest: str) -> None:
    async with proxy_before(emulator, listener={"tags": EVERY_TAG}) as proxy:
        answer = await ask(proxy, f"/~{installation(emulator).id}{rest}")

    assert answer.problem["code"] == "endpoint-refused"
    assert emulator.world.traffic.total == 0


async def test_a_user_part_of_the_url_names_the_installation(emulator: Emulator) -> None:
    one = installation(emulator, 2)

    async with proxy_before(emulator, listener={"tags": EVERY_TAG}) as proxy:
        answer = await ask(proxy, ECHO, extra=user(one.id))

    arrived = served(answer)
    assert arrived["installationId"] == one.id
    credentials = [value for name, value in arrived["headers"] if name.lower() == "authorization"]
    assert [value[:11] for value in credentials] == ["Bearer crs_"]


@pytest.mark.parametrize(
    ("target", "extra", "code"),
    [
        pytest.param("/~undefined/x", "", "installation-invalid", id="prefix-undefined"),
        pytest.param("/~a%2fb/x", "", "installation-invalid", id="prefix-escaped"),
        pytest.param("/~/x", "", "installation-invalid", id="prefix-empty"),
        pytest.param(ECHO, user("a", "secret"), "installation-invalid", id="user-with-password"),
        pytest.param(ECHO, "Authorization: Basic ###\r\n", "installation-invalid", id="user-junk"),
        pytest.param("/~a/x", user("b"), "installation-invalid", id="two-that-disagree"),
        pytest.param(ECHO, f"{ORGANIZATION}: ../x\r\n", "installation-invalid", id="organization"),
    ],
)
async def test_a_tag_that_names_nothing_is_refused_before_anything_is_sent(
    emulator: Emulator, target: str, extra: str, code: str
) -> None:
    async with proxy_before(emulator, listener={"tags": EVERY_TAG}) as proxy:
        answer = await ask(proxy, target, extra=extra)

    assert answer.problem["code"] == code
    assert emulator.world.traffic.total == 0


async def test_tags_that_are_not_enabled_are_no_tags(emulator: Emulator) -> None:
    one = installation(emulator)

    async with proxy_before(emulator) as proxy:
        by_path = await ask(proxy, f"/~{one.id}{ECHO}")
        by_user = await ask(proxy, ECHO, extra=user(one.id))

    assert by_path.problem["code"] == by_user.problem["code"] == "installation-required"


async def test_untagged_requests_may_get_the_token_of_the_organization_in_the_path(
    emulator: Emulator,
) -> None:
    one = installation(emulator, 1)

    async with proxy_before(emulator, listener={"untagged": "organization"}) as proxy:
        found = await ask(proxy, f"/organizations/{one.organization.id}/inventory")
        disguised = await ask(proxy, f"//organizations/{one.organization.id}/inventory")
        dotted = await ask(proxy, f"/x/../organizations/{one.organization.id}/inventory")
        nobody = await ask(proxy, "/projects")

    assert found.status == 200
    assert emulator.world.mints == {one.id: 1}
    assert disguised.problem["code"] == nobody.problem["code"] == "installation-required"
    assert dotted.problem["code"] == "bad-request"


async def test_untagged_requests_may_get_the_apps_own_token(emulator: Emulator) -> None:
    one = installation(emulator)

    async with proxy_before(emulator, listener={"untagged": "app"}) as proxy:
        projects = await ask(proxy, "/projects?limit=1&page=0")
        inventory = await ask(proxy, f"/organizations/{one.organization.id}/inventory")
        tagged = await ask(proxy, ECHO, tag=one.id)

    assert projects.status == 200
    assert inventory.status == 403
    assert served(tagged)["installationId"] == one.id
    assert emulator.world.mints == {"app": 1, one.id: 1}


async def test_a_listener_serves_only_the_installations_it_allows(emulator: Emulator) -> None:
    mine, other = installation(emulator, 0), installation(emulator, 1)

    async with proxy_before(emulator, listener={"allow": (mine.id,)}) as proxy:
        served_one = await ask(proxy, ECHO, tag=mine.id)
        refused = await ask(proxy, ECHO, tag=other.id)
        around = await ask(proxy, ECHO, extra=f"{ORGANIZATION}: {other.organization.id}\r\n")

    assert served_one.status == 200
    assert refused.problem["code"] == around.problem["code"] == "policy-denied"
    assert set(emulator.world.mints) == {mine.id}


async def test_app_reads_may_be_opened_and_nothing_else_under_app(emulator: Emulator) -> None:
    one = installation(emulator)
    policy = PolicyConfig(app_endpoints="read")

    async with proxy_before(emulator, policy=policy) as proxy:
        listed = await ask(proxy, "/app/installations?limit=2&page=0")
        read = await ask(proxy, f"/app/installations/{one.id}")
        disguised = await ask(proxy, "//app/installations")
        versioned = await ask(proxy, "/v0.5/app/installations")
        mint = await call(
            proxy.port,
            request_head("POST", f"/app/installations/{one.id}/accessTokens", tag=one.id),
        )

    assert len(served(listed)["installations"]) == 2
    assert served(read)["id"] == one.id
    for answer in (disguised, versioned, mint):
        assert answer.problem["code"] == "endpoint-refused"
    assert not emulator.world.mints
