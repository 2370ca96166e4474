"""A command's visit to the API, in front of a real emulator."""

from __future__ import annotations

import pytest

from icr_proxy.doctor.session import AppSession
from icr_proxy.emulator.server import Emulator
from icr_proxy.errors import KeyUnusableError, UpstreamError
from icr_proxy.identifiers import TokenKey
from tests.support.app_fixture import Visit, config_for, ok, scripted_upstream
from tests.support.doctor_fixture import config_before


async def test_all_installations_are_listed_however_many_pages_they_fill(
    emulator: Emulator,
) -> None:
    for _ in range(240):
        emulator.world.add_installation(credits_each=1)

    async with AppSession(config_before(emulator)) as session:
        found = await session.list_installations()

    assert [each.id for each in found] == list(emulator.world.installations)
    assert found[0].organization_name == "Askja Reforestation"


async def test_the_clock_is_read_without_any_credential(emulator: Emulator) -> None:
    emulator.world.shift_clock(300)

    async with AppSession(config_before(emulator)) as session:
        skew = await session.measure_skew()

    assert skew == pytest.approx(300, abs=2)
    assert not emulator.world.requests[-1].values("authorization")


async def test_each_call_of_a_command_carries_the_api_version_once(emulator: Emulator) -> None:
    async with AppSession(config_before(emulator)) as session:
        await session.measure_skew()
        found = await session.list_installations()
        token = await session.exchange.mint(TokenKey(found[0].id))
        authorization = b"Bearer " + token.secret.reveal().encode()
        await session.read_as_installation(b"/projects", authorization=authorization)
        await session.revoke(authorization)

    for seen in emulator.world.requests:
        assert seen.values("x-icr-api-version") == ["2023-06-16"]
        assert seen.values("accept-encoding") == ["identity"]


async def test_what_is_signed_afterwards_is_signed_by_the_apis_clock(emulator: Emulator) -> None:
    emulator.world.shift_clock(-3600)

    async with AppSession(config_before(emulator)) as session:
        await session.measure_skew()
        found = await session.list_installations()
        await session.exchange.mint(TokenKey(found[0].id))

    assert emulator.world.denied.total() == 0


async def test_an_answer_without_a_date_tells_no_skew() -> None:
    async def answer(visit: Visit, _: bytes) -> None:
        await visit.say(ok(b""))

    async with scripted_upstream(answer) as upstream, AppSession(config_for(upstream.url)) as visit:
        assert await visit.measure_skew() is None


async def test_a_read_leaves_with_the_headers_of_a_callers_request(emulator: Emulator) -> None:
    async with AppSession(config_before(emulator)) as session:
        status = await session.read_as_installation(b"/projects", authorization=b"Bearer crs_x")

    seen = emulator.world.requests[-1]
    assert status == 403
    assert seen.values("x-icr-api-version") == ["2023-06-16"]
    assert seen.values("authorization") == ["Bearer crs_x"]
    assert len(seen.values("via")) == 1


async def test_a_long_answer_is_not_waited_for() -> None:
    async def answer(visit: Visit, _: bytes) -> None:
        await visit.say(ok(b"x" * 100_000))

    async with scripted_upstream(answer) as upstream, AppSession(config_for(upstream.url)) as visit:
        assert await visit.revoke(b"Bearer crs_x") == 200


async def test_what_cannot_be_made_fails_when_it_is_needed() -> None:
    async with AppSession(config_for("http://127.0.0.1:1", key="none")) as session:
        with pytest.raises(KeyUnusableError):
            _ = session.keys
        with pytest.raises(UpstreamError):
            await session.measure_skew()
