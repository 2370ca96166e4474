"""Tokens are made and killed, installations are listed."""

import re
from dataclasses import replace

import pytest

from tests.support.emulator_client import NOW, Client, HandClock


async def test_minted_token_has_the_documented_shape(client: Client) -> None:
    installation = client.installation()
    target = f"/app/installations/{installation.id}/accessTokens"

    reply = await client.ask("POST", target, bearer=client.sign())

    assert reply.status == 200
    assert re.fullmatch("crs_[0-9a-f]{48}", reply.json["token"])
    assert reply.json["expiresAt"] == "2027-01-15T10:00:00.000Z"
    assert reply.json["installationId"] == installation.id
    assert reply.json["organizationId"] == installation.organization.id
    assert reply.json["permissions"] == installation.permissions
    assert reply.json["isActive"] is True
    assert client.emulator.world.mints == {installation.id: 1}


async def test_app_token_names_no_organization(client: Client) -> None:
    reply = await client.ask("POST", "/app/accessTokens", bearer=client.sign(), json={})

    assert "organizationId" not in reply.json
    assert reply.json["appId"] == client.emulator.app_id
    assert client.emulator.world.mints == {"app": 1}


async def test_switches_change_status_and_dates(client: Client) -> None:
    world = client.emulator.world
    world.settings = replace(world.settings, mint_status=201, milliseconds=False)

    reply = await client.ask("POST", "/app/accessTokens", bearer=client.sign())

    assert (reply.status, reply.json["expiresAt"]) == (201, "2027-01-15T10:00:00Z")


async def test_several_tokens_of_one_installation_live_side_by_side(client: Client) -> None:
    target = f"/organizations/{client.installation().organization.id}"
    tokens = [await client.mint(), await client.mint()]

    statuses = [(await client.ask("GET", target, bearer=token)).status for token in tokens]

    assert statuses == [200, 200]


@pytest.mark.parametrize("status", [404, 403])
async def test_unknown_installation_cannot_mint(client: Client, status: int) -> None:
    world = client.emulator.world
    world.settings = replace(world.settings, unknown_installation_status=status)

    reply = await client.ask("POST", "/app/installations/none/accessTokens", bearer=client.sign())

    assert (reply.status, reply.json["statusCode"]) == (status, status)
    assert (world.mints["none"], world.mint_attempts["none"]) == (0, 1)


async def test_token_dies_at_the_end_of_its_lifetime(client: Client, clock: HandClock) -> None:
    target = f"/organizations/{client.installation().organization.id}"
    token = await client.mint()
    clock.now = NOW + 7199
    before = await client.ask("GET", target, bearer=token)
    clock.now = NOW + 7200

    after = await client.ask("GET", target, bearer=token)

    assert (before.status, after.status) == (200, 403)
    assert after.json == {
        "statusCode": 403,
        "message": "Access token invalid",
        "error": "Forbidden",
    }
    assert client.emulator.world.denied["token-expired"] == 1


async def test_expired_tokens_are_buried_by_the_next_mint(client: Client, clock: HandClock) -> None:
    await client.mint()
    clock.now = NOW + 7200

    token = await client.mint()

    assert list(client.emulator.world.tokens) == [token]


async def test_delete_kills_the_very_token_in_the_header(client: Client) -> None:
    target = f"/organizations/{client.installation().organization.id}"
    killed, other = await client.mint(), await client.mint()

    reply = await client.ask("DELETE", "/app/installations/token", bearer=killed)

    assert (reply.status, reply.body) == (204, b"")
    assert (await client.ask("GET", target, bearer=killed)).status == 403
    assert (await client.ask("GET", target, bearer=other)).status == 200
    assert client.emulator.world.denied == {"token-revoked": 1}


async def test_revoke_all_spares_other_installations(client: Client) -> None:
    first, second = await client.mint(0), await client.mint(1)

    count = client.emulator.world.revoke_all(client.installation(0).id)

    assert count == 1
    assert first not in client.emulator.world.tokens
    assert second in client.emulator.world.tokens


async def test_status_of_invalid_token_can_be_401(client: Client) -> None:
    world = client.emulator.world
    world.settings = replace(world.settings, invalid_token_status=401)

    reply = await client.ask("GET", "/projects", bearer="crs_unknown")

    assert reply.json == {
        "statusCode": 401,
        "message": "Access token invalid",
        "error": "Unauthorized",
    }
    assert world.denied == {"token-unknown": 1}


async def test_jwt_is_no_access_token(client: Client) -> None:
    reply = await client.ask("GET", "/projects", bearer=client.sign())

    assert reply.json["message"] == "Access token invalid"


async def test_suspension_refuses_mints_and_tokens_until_it_ends(client: Client) -> None:
    world, installation = client.emulator.world, client.installation()
    target = f"/organizations/{installation.organization.id}"
    mint = f"/app/installations/{installation.id}/accessTokens"
    token = await client.mint()
    world.suspend(installation.id)
    refused_mint = await client.ask("POST", mint, bearer=client.sign())
    refused_call = await client.ask("GET", target, bearer=token)

    world.unsuspend(installation.id)

    allowed = await client.ask("GET", target, bearer=token)
    assert [refused_mint.status, refused_call.status, allowed.status] == [403, 403, 200]
    assert refused_call.json["message"] == "Access token invalid"
    assert world.denied == {"token-suspended": 1}


async def test_uninstalled_app_is_not_found(client: Client) -> None:
    installation = client.installation()
    token = await client.mint()

    client.emulator.world.uninstall(installation.id)

    one = f"/app/installations/{installation.id}"
    assert (await client.ask("GET", one, bearer=client.sign())).status == 404
    assert (await client.ask("POST", f"{one}/accessTokens", bearer=client.sign())).status == 404
    assert (await client.ask("GET", "/projects", bearer=token)).status == 403


async def test_list_has_active_installations_with_their_organizations(client: Client) -> None:
    client.emulator.world.suspend(client.installation(1).id)

    reply = await client.ask("GET", "/app/installations", bearer=client.sign())

    listed = [(item["id"], item["organization"]["id"]) for item in reply.json["installations"]]
    wanted = [client.installation(0), client.installation(2)]
    assert listed == [(item.id, item.organization.id) for item in wanted]
    assert reply.json["pagination"]["total"] == 2


async def test_installation_carries_the_oddities_of_real_payloads(client: Client) -> None:
    target = f"/app/installations/{client.installation().id}"

    reply = await client.ask("GET", target, bearer=client.sign())

    assert reply.json["accessTokensUrl"].startswith("undefined/app/installations/")
    assert reply.json["organization"]["organizationIndustries"] is None


async def test_new_user_and_organization_come_with_the_app(client: Client) -> None:
    body = {
        "user": {"email": "a@example.com"},
        "organization": {"fullName": "New", "type": "other"},
    }

    reply = await client.ask(
        "POST", "/app/create/user/organization", bearer=client.sign(), json=body
    )

    assert reply.status == 201
    assert reply.json["installation"]["id"] in client.emulator.world.installations
    assert reply.json["organization"]["fullName"] == "New"
