"""What callers may do, decided on the path without its disguises, enforced or only reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from icr_proxy.config.inbound_models import PolicyConfig, RuleConfig
from tests.support.app_fixture import RunningProxy, call, proxy_before, request_head

if TYPE_CHECKING:
    from icr_proxy.emulator.server import Emulator
    from tests.support.app_fixture import RawAnswer

NO_ECHO = RuleConfig(name="no-echo", action="deny", paths=("/_emulator/echo/**",))
NO_RETIREMENTS = RuleConfig(name="no-retirements", action="deny", operations=("v1.retire",))
READS = RuleConfig(name="reads", action="allow", operations=("*.list", "*.get"))


async def ask(
    proxy: RunningProxy, emulator: Emulator, target: str, *, method: str = "GET", number: int = 0
) -> RawAnswer:
    tag = list(emulator.world.installations)[number]
    extra = "Content-Length: 0\r\n" if method == "POST" else ""
    return await call(proxy.port, request_head(method, target, tag=tag, extra=extra))


@pytest.mark.parametrize(
    "target",
    [
        "/_emulator/echo/x",
        "/_emulator//echo/x",
        "/_EMULATOR/echo/x",
        "/%5femulator/echo/x",
        "/_emulator/echo;a=1/x",
    ],
)
async def test_a_rule_meets_a_path_however_it_is_written(emulator: Emulator, target: str) -> None:
    async with proxy_before(emulator, policy=PolicyConfig(rules=(NO_ECHO,))) as proxy:
        answer = await ask(proxy, emulator, target)

    assert answer.problem["code"] == "policy-denied"
    assert "no-echo" in answer.problem["message"]
    assert emulator.world.traffic.total == 0


@pytest.mark.parametrize("target", ["/v1/retire", "/V1/Retire", "/v1/%72etire", "/v1//retire/"])
async def test_an_operation_is_known_in_every_disguise(emulator: Emulator, target: str) -> None:
    async with proxy_before(emulator, policy=PolicyConfig(rules=(NO_RETIREMENTS,))) as proxy:
        answer = await ask(proxy, emulator, target, method="POST")

    assert answer.problem["code"] == "policy-denied"


async def test_what_would_be_refused_passes_in_report_mode_and_is_told(emulator: Emulator) -> None:
    policy = PolicyConfig(mode="report", rules=(NO_ECHO,))

    async with proxy_before(emulator, policy=policy) as proxy:
        answer = await ask(proxy, emulator, "/_emulator/echo/x")

        assert answer.status == 200
        assert proxy.log("request.done")[0]["would_refuse"] == "no-echo"
        assert proxy.metric("would_refuse_total") == 1


async def test_with_a_default_of_deny_only_what_is_allowed_passes(emulator: Emulator) -> None:
    policy = PolicyConfig(default="deny", rules=(READS,))

    async with proxy_before(emulator, policy=policy) as proxy:
        listed = await ask(proxy, emulator, "/projects?limit=1&page=0")
        unknown = await ask(proxy, emulator, "/_emulator/echo/x")

    assert listed.status == 200
    assert unknown.problem["code"] == "policy-denied"


async def test_a_rule_may_be_about_one_installation(emulator: Emulator) -> None:
    second = list(emulator.world.installations)[1]
    rule = RuleConfig(name="not-them", action="deny", installations=(second,))

    async with proxy_before(emulator, policy=PolicyConfig(rules=(rule,))) as proxy:
        first = await ask(proxy, emulator, "/_emulator/echo/x", number=0)
        other = await ask(proxy, emulator, "/_emulator/echo/x", number=1)

    assert first.status == 200
    assert other.problem["code"] == "policy-denied"


async def test_read_only_lets_unknown_reads_pass_and_no_unknown_write(emulator: Emulator) -> None:
    async with proxy_before(emulator, policy=PolicyConfig(read_only=True)) as proxy:
        read = await ask(proxy, emulator, "/_emulator/echo/x")
        write = await ask(proxy, emulator, "/_emulator/echo/x", method="POST")

    assert read.status == 200
    assert write.problem["code"] == "policy-denied"
