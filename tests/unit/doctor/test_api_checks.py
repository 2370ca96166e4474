"""A token for each installation, what it may do, and one read with it."""

from __future__ import annotations

import pytest

from icr_proxy.credentials.access_token import AccessToken
from icr_proxy.doctor import api_checks
from icr_proxy.doctor.api_checks import judge_skew
from icr_proxy.doctor.findings import Case
from icr_proxy.doctor.session import AppSession
from icr_proxy.emulator.registry.credentials import new_private_key
from icr_proxy.emulator.server import Emulator
from icr_proxy.errors import AppKeyRefusedError, MintError
from icr_proxy.redaction import Secret
from tests.support.app_fixture import Visit, app_key_pem, config_for, ok, scripted_upstream
from tests.support.doctor_fixture import config_before, find, findings_of, states


def first(emulator: Emulator) -> str:
    return next(iter(emulator.world.installations))


def token_with(**permissions: str) -> AccessToken:
    return AccessToken(
        secret=Secret("crs_x"),
        minted_at=0.0,
        expires_at=7200.0,
        fingerprint="f",
        permissions=permissions,
    )


async def test_a_suspended_installation_fails_with_a_remedy(emulator: Emulator) -> None:
    emulator.world.suspend(first(emulator))

    found = await findings_of(config_before(emulator), installation=first(emulator))

    assert find(found, "token").state == "fail"
    assert "suspended" in find(found, "token").remedy
    assert find(found, "installations").detail == "2 active"


async def test_the_installation_of_a_listener_is_tried_though_it_is_not_listed(
    emulator: Emulator,
) -> None:
    config = config_before(emulator, listener={"installation": "gone"})

    found = await findings_of(config)

    assert find(found, "token").state == "fail"
    assert find(found, "token").detail.startswith("gone: ")
    assert [each.state for each in found if each.name == "token"].count("ok") == 3


async def test_one_installation_may_be_named(emulator: Emulator) -> None:
    found = await findings_of(config_before(emulator), installation=first(emulator))

    assert [each.name for each in found].count("token") == 1
    assert emulator.world.installations[first(emulator)].organization.full_name in (
        find(found, "token").detail
    )


async def test_many_installations_are_tried_only_on_request(emulator: Emulator) -> None:
    for _ in range(20):
        emulator.world.add_installation()

    few = await findings_of(config_before(emulator))
    everyone = await findings_of(config_before(emulator), everyone=True)

    assert [each.name for each in few].count("permissions") == api_checks.MOST
    assert "3 more installations were not tried" in few[-3].detail
    assert [each.name for each in everyone].count("permissions") == 23


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(AppKeyRefusedError("refused"), "fingerprint", id="the key"),
        pytest.param(MintError("down"), "again later", id="the API"),
    ],
)
async def test_a_mint_that_fails_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, error: MintError, words: str
) -> None:
    session = AppSession(config_for("http://127.0.0.1:1"))

    async def mint(_: object) -> AccessToken:
        raise error

    monkeypatch.setattr(session.exchange, "mint", mint)
    case = Case(session=session, environ={}, installation="i")

    found = [each async for each in api_checks.tokens(case)]

    assert found[0].state == "fail"
    assert words in found[0].remedy


def test_permissions_are_shown() -> None:
    found = api_checks.judge_permissions(token_with(organization_info="VIEW", examiner="VIEW"))

    assert (found.state, found.detail) == ("ok", "examiner VIEW, organization_info VIEW")


@pytest.mark.parametrize(
    ("permissions", "words"),
    [({}, "none; organization_info is missing"), ({"examiner": "V\x1b[2J"}, "examiner V[2J; ")],
)
def test_a_permission_that_each_installation_has_is_missed(
    permissions: dict[str, str], words: str
) -> None:
    found = api_checks.judge_permissions(token_with(**permissions))

    assert found.state == "warn"
    assert words in found.detail


async def test_a_version_that_the_api_does_not_know_fails_with_its_key(emulator: Emulator) -> None:
    config = config_before(emulator, upstream={"api_version": "1999-01-01"})

    found = find(await findings_of(config), "API version")

    assert found.state == "fail"
    assert "upstream.api_version" in found.remedy


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        pytest.param(200, "ok", "accepted", id="fine"),
        pytest.param(401, "fail", "the token is refused", id="401"),
        pytest.param(403, "fail", "the token is refused", id="403"),
        pytest.param(400, "fail", "seems unsupported", id="400"),
        pytest.param(404, "warn", "not known", id="404"),
        pytest.param(500, "warn", "not known", id="500"),
    ],
)
def test_the_answer_to_the_read_is_judged(status: int, state: str, words: str) -> None:
    found = api_checks.judge_version(status, asked="2023-06-16", target="/organizations/o")

    assert found.state == state
    assert words in found.detail


async def test_a_read_without_answer_fails(emulator: Emulator) -> None:
    async with AppSession(config_before(emulator)) as session:
        case = Case(session=session, environ={}, installation=first(emulator))
        _ = [each async for each in api_checks.tokens(case)]
        await emulator.stop()
        found = [each async for each in api_checks.version(case)]

    assert found[0].state == "fail"


async def test_what_the_api_refuses_to_revoke_for_being_dead_is_dead(emulator: Emulator) -> None:
    async with AppSession(config_before(emulator)) as session:
        case = Case(session=session, environ={}, installation=first(emulator))
        _ = [each async for each in api_checks.tokens(case)]
        emulator.world.revoke_all(first(emulator))
        found = [each async for each in api_checks.revoke(case)]

    assert states(found) == {"clean-up": "ok"}


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
