"""Clock, signature and installations."""

from __future__ import annotations

import pytest

from icr_proxy.doctor.api_checks import judge_skew
from icr_proxy.emulator.registry.credentials import new_private_key
from icr_proxy.emulator.server import Emulator
from tests.support.app_fixture import Visit, app_key_pem, config_for, ok, scripted_upstream
from tests.support.doctor_fixture import config_before, find, findings_of, states

OTHER_APP = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("skew", "state", "words"),
    [
        pytest.param(0.0, "ok", "agrees", id="none"),
        pytest.param(30.0, "ok", "30 s behind", id="small"),
        pytest.param(31.0, "warn", "31 s behind", id="behind"),
        pytest.param(-31.0, "warn", "31 s ahead of", id="ahead"),
        pytest.param(-60.0, "warn", "60 s ahead of", id="just accepted: exp is 600 s ahead"),
        pytest.param(-61.0, "fail", "61 s ahead of", id="exp is over 600 s ahead"),
        pytest.param(539.0, "warn", "539 s behind", id="just not expired"),
        pytest.param(540.0, "fail", "540 s behind", id="expired on arrival"),
    ],
)
def test_a_clock_fails_when_what_it_signs_is_refused(skew: float, state: str, words: str) -> None:
    found = judge_skew(skew)

    assert found.state == state
    assert words in found.detail
    assert bool(found.remedy) is (state != "ok")


async def test_a_key_of_another_app_is_refused_with_a_remedy(emulator: Emulator) -> None:
    found = await findings_of(config_before(emulator, key=new_private_key()))

    assert find(found, "app JWT").state == "fail"
    assert "fingerprint" in find(found, "app JWT").remedy
    assert states(found)["token"] == "skip"


async def test_a_wrong_app_id_is_refused_with_a_remedy(emulator: Emulator) -> None:
    found = await findings_of(config_before(emulator, app_id=OTHER_APP))

    assert find(found, "app JWT").state == "fail"
    assert "app.id" in find(found, "app JWT").remedy


async def test_an_app_that_is_installed_nowhere_is_warned_of(emulator: Emulator) -> None:
    emulator.world.installations.clear()

    found = await findings_of(config_before(emulator))

    assert find(found, "installations").state == "warn"
    assert states(found)["API version"] == "skip"


async def test_an_api_without_a_date_leaves_the_clock_open() -> None:
    async def answer(visit: Visit, head: bytes) -> None:
        body = b'{"installations": []}' if b"/app/" in head else b""
        await visit.say(ok(body))

    async with scripted_upstream(answer) as upstream:
        found = await findings_of(config_for(upstream.url, key=app_key_pem()))

    assert find(found, "clock").state == "warn"
    assert states(found)["app JWT"] == "ok"


async def test_a_failing_api_is_not_taken_for_a_refusing_one() -> None:
    async def answer(visit: Visit, _: bytes) -> None:
        await visit.say(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    async with scripted_upstream(answer) as upstream:
        found = await findings_of(config_for(upstream.url))

    assert "answered 503" in find(found, "app JWT").detail
    assert "fingerprint" not in find(found, "app JWT").remedy
