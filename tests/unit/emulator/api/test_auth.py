"""Nobody gets at what is another's, and every denial is counted."""

import time
from dataclasses import replace
from typing import Any

import jwt
import pytest

from icr_proxy.emulator.api.calls import Route
from icr_proxy.emulator.api.route_table import ROUTES
from icr_proxy.emulator.registry.credentials import new_private_key
from tests.support.emulator_client import NOW, Client

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


MINT = "/app/accessTokens"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"iss": "another-app"}, "jwt-iss", id="wrong issuer"),
        pytest.param({"iss": None}, "jwt-iss", id="no issuer"),
        pytest.param({"iat": None}, "jwt-iat-missing", id="no iat"),
        pytest.param({"iat": "now"}, "jwt-iat-missing", id="iat is no number"),
        pytest.param({"exp": None}, "jwt-exp-missing", id="no exp"),
        pytest.param({"exp": True}, "jwt-exp-missing", id="exp is a boolean"),
        pytest.param({"iat": NOW + 6}, "jwt-iat-future", id="iat in the future"),
        pytest.param({"exp": NOW - 5}, "jwt-expired", id="exp in the past"),
        pytest.param({"exp": NOW + 606}, "jwt-exp-too-far", id="exp beyond ten minutes"),
    ],
)
async def test_jwt_with_bad_claims_is_refused(
    client: Client, changes: dict[str, Any], reason: str
) -> None:
    reply = await client.ask("POST", MINT, bearer=client.sign(**changes))

    assert reply.status == 401
    assert reply.json["error"] == "Unauthorized"
    assert dict(client.emulator.world.denied) == {reason: 1}
    assert not client.emulator.world.tokens


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="as the proxy signs"),
        pytest.param({"exp": int(NOW) + 600}, id="as the vendor signs"),
        pytest.param({"exp": NOW + 604.5}, id="inside of the leeway"),
        pytest.param({"iat": NOW + 4}, id="iat inside of the leeway"),
        pytest.param({"alg": None}, id="without the alg claim"),
    ],
)
async def test_good_jwt_is_accepted(client: Client, changes: dict[str, Any]) -> None:
    reply = await client.ask("POST", MINT, bearer=client.sign(**changes))

    assert reply.status == 200


async def test_alg_claim_is_demanded_when_strict(client: Client) -> None:
    world = client.emulator.world
    world.settings = replace(world.settings, require_alg_claim=True)

    without = await client.ask("POST", MINT, bearer=client.sign(alg=None))
    with_it = await client.ask("POST", MINT, bearer=client.sign())

    assert (without.status, with_it.status) == (401, 200)


def hs256(client: Client) -> str:
    claims = {"iss": client.emulator.app_id, "iat": int(NOW), "exp": int(NOW) + 60}
    return jwt.encode(claims, "x" * 32, algorithm="HS256")


def unsigned(client: Client) -> str:
    claims = {"iss": client.emulator.app_id, "iat": int(NOW), "exp": int(NOW) + 60}
    return jwt.encode(claims, "", algorithm="none")


def tampered(client: Client) -> str:
    head, _, signature = client.sign().split(".")
    return ".".join((head, client.sign(exp=int(NOW) + 599).split(".")[1], signature))


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        pytest.param(hs256, "jwt-algorithm", id="HS256"),
        pytest.param(unsigned, "jwt-algorithm", id="alg none"),
        pytest.param(tampered, "jwt-signature", id="claims exchanged"),
        pytest.param(lambda c: c.sign(new_private_key()), "jwt-signature", id="other key"),
        pytest.param(lambda _: "not.a.jwt", "jwt-malformed", id="garbage"),
        pytest.param(lambda _: "crs_" + "0" * 48, "jwt-malformed", id="access token"),
        pytest.param(lambda _: "", "jwt-missing", id="nothing"),
    ],
)
async def test_forged_jwt_is_refused(client: Client, forge: Any, reason: str) -> None:
    reply = await client.ask("POST", MINT, bearer=forge(client))

    assert reply.status == 401
    assert dict(client.emulator.world.denied) == {reason: 1}


async def test_status_of_bad_jwt_can_be_403(client: Client) -> None:
    world = client.emulator.world
    world.settings = replace(world.settings, bad_jwt_status=403)

    reply = await client.ask("POST", MINT, bearer="x")

    assert (reply.status, reply.json["error"]) == (403, "Forbidden")


async def test_jwt_is_judged_by_the_shifted_clock(client: Client) -> None:
    signed = client.sign()
    client.emulator.world.shift_clock(3600)

    reply = await client.ask("POST", MINT, bearer=signed)

    assert reply.status == 401
    assert time.strftime("%H:%M:%S", time.gmtime(NOW + 3600)) in reply.headers["Date"]


async def test_every_active_key_is_tried_until_deleted(client: Client) -> None:
    second = new_private_key()
    fingerprint = client.emulator.add_key(second)
    accepted = await client.ask("POST", MINT, bearer=client.sign(second))

    deleted = client.emulator.delete_key(fingerprint)

    refused = await client.ask("POST", MINT, bearer=client.sign(second))
    assert deleted
    assert (accepted.status, refused.status) == (200, 401)
