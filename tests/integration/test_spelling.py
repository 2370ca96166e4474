"""An ID in UUID form means one installation, in whatever case it is written and wherever."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from icr_proxy.config.inbound_models import PolicyConfig, RuleConfig
from icr_proxy.config.loader import load
from icr_proxy.config.models import WebhooksConfig
from icr_proxy.redaction import Secret
from tests.support.app_fixture import RawAnswer, RunningProxy, call, proxy_before, request_head
from tests.unit.admin.test_webhooks_delivery import SECRET, about, delivery

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from icr_proxy.emulator.registry.entities import Installation
    from icr_proxy.emulator.server import Emulator

    Spell = Callable[[Installation], bytes]

ECHO = "/_emulator/echo/x"
EVERY_TAG = {"tags": ("header", "path", "userinfo")}


def first(emulator: Emulator) -> Installation:
    return next(iter(emulator.world.installations.values()))


async def use(proxy: RunningProxy, tag: str, target: str = ECHO) -> RawAnswer:
    return await call(proxy.port, request_head(target=target, tag=tag))


async def post(proxy: RunningProxy, path: str) -> RawAnswer:
    port = int(proxy.app.admin.address.rpartition(":")[2])
    return await call(port, request_head("POST", path, tag=None))


def by_header(one: Installation) -> bytes:
    return request_head(target=ECHO, tag=one.id.upper())


def by_organization(one: Installation) -> bytes:
    extra = f"X-ICR-Organization-Id: {one.organization.id.upper()}\r\n"
    return request_head(target=ECHO, tag=None, extra=extra)


def by_path(one: Installation) -> bytes:
    return request_head(target=f"/~{one.id.upper()}{ECHO}", tag=None)


def by_user(one: Installation) -> bytes:
    user = b64encode(f"{one.id.upper()}:".encode()).decode()
    return request_head(target=ECHO, tag=None, extra=f"Authorization: Basic {user}\r\n")


def by_header_and_path(one: Installation) -> bytes:
    return request_head(target=f"/~{one.id}{ECHO}", tag=one.id.upper())


@pytest.mark.parametrize(
    "spelled",
    [by_header, by_organization, by_path, by_user, by_header_and_path],
    ids=lambda way: way.__name__,
)
async def test_every_tag_may_be_written_in_capitals(emulator: Emulator, spelled: Spell) -> None:
    one = first(emulator)
    async with proxy_before(emulator, listener=EVERY_TAG) as proxy:
        await use(proxy, one.id)
        answer = await call(proxy.port, spelled(one))

        assert answer.status == 200, answer.body
        assert proxy.metric("token_mints_total", kind="installation", result="ok") == 1
        assert proxy.metric("installation_requests_total", installation=one.id) == 2
        assert {line["installation"] for line in proxy.log("request.done")} == {one.id}


async def test_an_organization_in_a_path_may_be_written_in_capitals(emulator: Emulator) -> None:
    one = first(emulator)
    target = f"/organizations/{one.organization.id.upper()}/inventory"
    async with proxy_before(emulator, listener={"untagged": "organization"}) as proxy:
        await call(proxy.port, request_head(target=target, tag=None))

        assert proxy.log("request.done")[0]["installation"] == one.id
    assert emulator.world.requests[-1].target == target  # forwarded as it came


async def test_a_rule_is_about_the_installation_and_not_its_spelling(emulator: Emulator) -> None:
    one = first(emulator)
    rule = RuleConfig(name="no", action="deny", installations=(one.id,))
    async with proxy_before(emulator, policy=PolicyConfig(rules=(rule,))) as proxy:
        answers = [await use(proxy, spelled) for spelled in (one.id, one.id.upper())]

    assert [answer.problem["code"] for answer in answers] == ["policy-denied"] * 2


async def test_a_block_is_about_the_installation_and_not_its_spelling(emulator: Emulator) -> None:
    one = first(emulator)
    async with proxy_before(emulator) as proxy:
        block = await post(proxy, f"/installations/{one.id.upper()}/block")
        refused = [await use(proxy, spelled) for spelled in (one.id, one.id.upper())]
        again = await post(proxy, f"/installations/{one.id}/block")
        await post(proxy, f"/installations/{one.id}/unblock")
        served = await use(proxy, one.id.upper())

    assert json.loads(block.body)["installation"] == one.id
    assert [answer.problem["code"] for answer in refused] == ["installation-blocked"] * 2
    assert json.loads(again.body)["changed"] is False
    assert served.status == 200


async def test_a_drop_is_about_the_installation_and_not_its_spelling(emulator: Emulator) -> None:
    one = first(emulator)
    hooks = WebhooksConfig(bind="127.0.0.1:0", path="/hooks", secret=Secret(SECRET))
    async with proxy_before(emulator, webhooks=hooks) as proxy:
        await use(proxy, one.id)
        dropped = await post(proxy, f"/tokens/{one.id.upper()}/drop")
        await use(proxy, one.id)
        assert proxy.app.webhooks is not None
        port = int(proxy.app.webhooks.address.rpartition(":")[2])
        await call(port, delivery(about("suspended", one.id.upper())))

        assert json.loads(dropped.body)["dropped"] is True
        assert proxy.log("webhook.received")[0]["dropped"] is True


async def test_the_guard_knows_a_repetition_in_another_spelling(emulator: Emulator) -> None:
    one = first(emulator)
    policy = PolicyConfig(duplicate_guard=60.0)

    def write(tag: str) -> bytes:
        lines = "Idempotency-Key: one\r\nContent-Length: 2\r\n"
        return request_head("POST", ECHO, tag=tag, extra=lines) + b"{}"

    async with proxy_before(emulator, policy=policy) as proxy:
        await call(proxy.port, write(one.id))
        again = await call(proxy.port, write(one.id.upper()))

    assert (b"Idempotency-Replayed", b"true") in again.headers


async def test_an_id_that_is_no_uuid_keeps_its_case(emulator: Emulator) -> None:
    async with proxy_before(emulator) as proxy:
        await post(proxy, "/installations/ACME/block")

        assert (await use(proxy, "ACME")).problem["code"] == "installation-blocked"
        assert (await use(proxy, "acme")).problem["code"] == "installation-refused"


def test_every_id_in_the_configuration_has_one_spelling(tmp_path: Path) -> None:
    low, high = "3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11", "3B0C9F0E-7D4B-4B59-8F0E-2B1F0F6F8C11"
    file = tmp_path / "c.yaml"
    file.write_text(
        json.dumps(
            {
                "app": {"id": "4711", "private_key": "x"},
                "listeners": [{"bind": "127.0.0.1:0", "installation": high, "allow": [low]}],
                "callers": [{"name": "one", "certificates": ["cn:one"], "installations": [high]}],
                "policy": {"rules": [{"name": "r", "action": "deny", "installations": [high]}]},
            }
        )
    )

    config = load(file=file, environ={}, flags={})

    listener = config.listeners[0]
    assert (listener.installation, listener.allow) == (low, (low,))
    assert config.callers[0].installations == (low,)
    assert config.policy.rules[0].installations == (low,)
