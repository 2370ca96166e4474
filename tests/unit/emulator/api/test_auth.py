"""Nobody gets at what is another's, and every denial is counted."""

import pytest

from icr_proxy.emulator.api.calls import Route
from icr_proxy.emulator.api.route_table import ROUTES
from tests.support.emulator_client import Client

ORGANIZATION_ROUTES = [route for route in ROUTES if route.scope is not None]


@pytest.mark.parametrize(
    "route", ORGANIZATION_ROUTES, ids=lambda route: f"{route.method} {route.template}"
)
async def test_other_organization_is_denied_and_counted(client: Client, route: Route) -> None:
    target = route.template.replace("{id}", client.installation(1).organization.id)
    token = await client.mint(0)

    reply = await client.ask(route.method, target, bearer=token)

    assert reply.json == {"statusCode": 403, "message": "Forbidden resource", "error": "Forbidden"}
    assert client.emulator.world.denied == {"wrong-organization": 1}
    assert not client.emulator.world.ledger


@pytest.mark.parametrize(
    ("granted", "level", "status"),
    [
        ({}, "none", 403),
        ({"organization_inventory": "VIEW"}, "VIEW", 403),
        ({"organization_inventory": "REQUEST"}, "REQUEST", 400),
        ({"organization_inventory": "WRITE"}, "WRITE", 400),
        ({"organization_warehouse": "WRITE"}, "of another permission", 403),
    ],
)
async def test_higher_level_includes_the_lower(
    client: Client, granted: dict[str, str], level: str, status: int
) -> None:
    installation = client.installation()
    client.emulator.world.set_permissions(installation.id, granted)
    target = f"/organizations/{installation.organization.id}/inventory/requests/retire"

    reply = await client.ask("POST", target, bearer=await client.mint())

    assert reply.status == status, level
    assert client.emulator.world.denied["permission"] == (status == 403)


async def test_permissions_of_a_token_are_a_snapshot(client: Client) -> None:
    installation = client.installation()
    target = f"/organizations/{installation.organization.id}/inventory"
    old = await client.mint()
    client.emulator.world.set_permissions(installation.id, {"organization_info": "VIEW"})

    new = await client.mint()

    assert (await client.ask("GET", target, bearer=old)).status == 200
    assert (await client.ask("GET", target, bearer=new)).status == 403


async def test_app_token_reaches_no_organization(client: Client) -> None:
    token = await client.mint_for_app()
    target = f"/organizations/{client.installation().organization.id}"

    organization = await client.ask("GET", target, bearer=token)
    projects = await client.ask("GET", "/projects", bearer=token)

    assert (organization.status, projects.status) == (403, 200)
    assert client.emulator.world.denied == {"app-token": 1}


@pytest.mark.parametrize("version", ["2023-06-16", None])
async def test_known_version_or_none_is_accepted(client: Client, version: str | None) -> None:
    headers = [("X-ICR-Api-Version", version)] if version else []

    reply = await client.ask("GET", "/projects", bearer=await client.mint(), headers=headers)

    assert reply.status == 200


async def test_unknown_version_is_a_bad_request(client: Client) -> None:
    headers = [("x-icr-api-version", "2020-01-01")]

    reply = await client.ask("GET", "/projects", bearer=await client.mint(), headers=headers)

    assert (reply.status, reply.json["error"]) == (400, "Bad Request")


@pytest.mark.parametrize(
    "repeated",
    [
        pytest.param([("x-icr-api-version", "2023-06-16")] * 2, id="version"),
        pytest.param([("Authorization", "Bearer crs_second")], id="authorization"),
    ],
)
async def test_repeated_header_is_a_bad_request(
    client: Client, repeated: list[tuple[str, str]]
) -> None:
    reply = await client.ask("GET", "/projects", bearer=await client.mint(), headers=repeated)

    assert reply.status == 400
    assert client.emulator.world.denied == {"repeated-header": 1}
