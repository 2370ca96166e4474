"""The whole way of a credential, in front of a real emulator."""

from __future__ import annotations

import pytest

from icr_proxy.doctor import api_checks
from icr_proxy.doctor.examination import STEPS, examine, not_examined
from icr_proxy.doctor.findings import Case, Finding, failed
from icr_proxy.doctor.session import AppSession
from icr_proxy.emulator.server import Emulator
from tests.support.app_fixture import Visit, config_for, scripted_upstream
from tests.support.doctor_fixture import config_before, find, findings_of, states


async def test_a_healthy_way_is_gone_to_its_end_and_leaves_no_token_behind(
    emulator: Emulator,
) -> None:
    found = await findings_of(config_before(emulator))

    assert {each.state for each in found} == {"ok"}
    assert [each.name for each in found].count("token") == 3
    assert find(found, "clean-up").detail == "revoked what was made here, 3 tokens"
    assert not emulator.world.tokens


async def test_each_failure_has_a_remedy_and_what_needs_it_is_skipped() -> None:
    found = await findings_of(config_for("http://127.0.0.1:1"))

    assert find(found, "TCP").state == "fail"
    assert find(found, "TCP").remedy
    assert find(found, "TLS") == Finding("TLS", "skip", "needs TCP")
    assert states(found)["API version"] == "skip"
    assert states(found)["key"] == "ok"


async def test_a_bad_key_does_not_keep_the_network_from_being_looked_at(
    emulator: Emulator,
) -> None:
    found = await findings_of(config_before(emulator, key="no key at all"))

    assert states(found) | {"key": "fail", "clock": "ok", "app JWT": "skip"} == states(found)


async def test_tokens_are_revoked_even_if_the_examination_is_broken_off(
    emulator: Emulator,
) -> None:
    async with AppSession(config_before(emulator)) as session:
        case = Case(session=session, environ={})
        found: list[Finding] = []

        def tell(finding: Finding) -> None:
            found.append(finding)
            if finding.name == "permissions":
                raise KeyError(finding.name)

        with pytest.raises(KeyError):
            await examine(case, tell=tell)

    assert found[-1].name == "clean-up"
    assert not emulator.world.tokens


async def test_what_cannot_be_revoked_is_said(emulator: Emulator) -> None:
    async with AppSession(config_before(emulator)) as session:
        case = Case(
            session=session, environ={}, installation=next(iter(emulator.world.installations))
        )
        minted = [each async for each in api_checks.tokens(case)]
        await emulator.stop()
        left = [each async for each in api_checks.revoke(case)]

    assert minted[0].state == "ok"
    assert left[0].state == "warn"
    assert left[0].detail == "1 of 1 token made here not revoked"


async def test_a_clock_that_is_far_ahead_fails_but_the_rest_goes_on(emulator: Emulator) -> None:
    emulator.world.shift_clock(-300)

    found = await findings_of(config_before(emulator))

    assert find(found, "clock").state == "fail"
    assert "ahead of" in find(found, "clock").detail
    assert states(found) | {"app JWT": "ok", "token": "ok"} == states(found)


async def test_an_api_that_answers_nonsense_is_told_apart_from_one_that_refuses() -> None:
    async def babble(visit: Visit, _: bytes) -> None:
        await visit.say(b"220 mail.example ESMTP\r\n")

    async with scripted_upstream(babble) as upstream:
        found = await findings_of(config_for(upstream.url))

    assert find(found, "clock").state == "fail"
    assert find(found, "app JWT").state == "fail"


def test_without_a_configuration_nothing_is_examined() -> None:
    found = not_examined(("app.id: is required", "limts: is no key"))

    assert found[0].detail == "app.id: is required\nlimts: is no key"
    assert [each.state for each in found[1:]] == ["skip"] * len(STEPS)
    assert failed(found)
