"""An organization, its inventory, its requests, its retirements."""

from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest

from icr_proxy.emulator.api.organization_endpoints import approve
from icr_proxy.emulator.api_errors import ApiError
from icr_proxy.emulator.registry.entities import Account
from tests.support.emulator_client import Client

PURPOSE = {"reason": "Test", "beneficiaryName": "Nobody"}


def organization(client: Client, number: int = 0) -> str:
    return f"/organizations/{client.installation(number).organization.id}"


async def inventory(client: Client, token: str, query: str = "") -> list[Any]:
    target = f"{organization(client)}/inventory{query}"
    reply = await client.ask("GET", target, bearer=token)
    return list(reply.json["credits"])


async def test_organization_has_the_documented_members(client: Client) -> None:
    reply = await client.ask("GET", organization(client), bearer=await client.mint())

    wanted = [
        "createdAt",
        "updatedAt",
        "fullName",
        "countryCode",
        "logo",
        "id",
        "type",
        "isPublic",
        "url",
    ]
    assert set(wanted) <= set(reply.json)
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("tail", ["", "/addresses", "/inventory", "/retirements"])
async def test_old_prefix_means_the_same(client: Client, tail: str) -> None:
    target = organization(client) + tail
    token = await client.mint()

    plain = await client.ask("GET", target, bearer=token)
    prefixed = await client.ask("GET", f"/v0.5{target}", bearer=token)

    assert (plain.status, plain.body) == (200, prefixed.body)


async def test_inventory_lists_credits_with_78_digit_strings(client: Client) -> None:
    credits_ = await inventory(client, await client.mint())

    assert [item["type"] for item in credits_] == ["exPost", "exAnte"]
    assert [len(item["tokenId"]) for item in credits_] == [78, 78]
    assert [item["amount"] for item in credits_] == [1_000_000, 1_000_000]


@pytest.mark.parametrize("query", ["?development", "?development=", "?development=false"])
async def test_development_counts_by_presence(client: Client, query: str) -> None:
    credits_ = await inventory(client, await client.mint(), query)

    assert [item["vintage"] for item in credits_] == ["2020"]


async def test_request_waits_for_approval_and_then_moves_credits(client: Client) -> None:
    world, token = client.emulator.world, await client.mint()
    credit = (await inventory(client, token))[0]
    receiver = client.installation(1).organization.id
    body = {"creditId": credit["id"], "amount": 2.5, "toOrganizationId": receiver}
    target = f"{organization(client)}/inventory/requests"
    made = await client.ask("POST", f"{target}/transfer", bearer=token, json=body)
    before = len(world.ledger)

    wish = approve(world, made.json["id"])

    listed = (await client.ask("GET", target, bearer=token)).json["creditRequests"]
    held = world.book.balance(Account(receiver, "inventory"), credit_id=credit["id"])
    assert (made.status, made.json["state"], before) == (201, "pending", 0)
    assert [(item["id"], item["state"]) for item in listed] == [(wish.id, "processed")]
    assert held == Decimal("2.5")
    with pytest.raises(ApiError):
        approve(world, wish.id)


async def test_approved_retirement_appears_with_its_pdf(client: Client) -> None:
    world, token = client.emulator.world, await client.mint()
    credit = (await inventory(client, token))[0]
    body = {
        "creditId": credit["id"],
        "amount": 1,
        "toAddress": "0x1",
        "retirementData": PURPOSE | {"comment": "(a\\b)"},
    }
    target = f"{organization(client)}/inventory/requests/retire"
    made = await client.ask("POST", target, bearer=token, json=body)
    wish = approve(world, made.json["id"])

    listed = await client.ask("GET", f"{organization(client)}/retirements", bearer=token)

    newest = listed.json["retirements"][-1]
    assert (newest["id"], newest["amount"]) == (wish.retirement_id, 1)
    assert newest["organizationOwner"]["id"] == client.installation().organization.id


async def test_both_at_once_moves_outside_and_retires_there(client: Client) -> None:
    world, token = client.emulator.world, await client.mint()
    credit = (await inventory(client, token))[0]
    body = {"creditId": credit["id"], "amount": 1, "toAddress": "0x1", "retirementData": PURPOSE}
    target = f"{organization(client)}/inventory/requests/transfer_retire"
    made = await client.ask("POST", target, bearer=token, json=body)

    approve(world, made.json["id"])

    assert [entry.kind for entry in world.ledger] == ["transfer", "retire"]
    assert world.book.balance(Account("0x1", "retired"), credit_id=credit["id"]) == 1


@pytest.mark.parametrize(
    ("action", "changes", "message"),
    [
        pytest.param("burn", {}, "action must be one of", id="unknown action"),
        pytest.param("retire", {"amount": 1}, "retirementData should", id="no purpose"),
        pytest.param("transfer", {"amount": 1}, "toOrganizationId or toAddress", id="no target"),
        pytest.param(
            "transfer", {"toOrganizationId": "x"}, "must be an organization", id="bad target"
        ),
        pytest.param("transfer", {"amount": 0}, "amount must be positive", id="zero"),
        pytest.param("transfer", {"amount": -1}, "amount must be positive", id="negative"),
        pytest.param("transfer", {"amount": "NaN"}, "amount must be positive", id="NaN"),
        pytest.param("transfer", {"amount": 1e300}, "amount must be positive", id="huge"),
        pytest.param("transfer", {"amount": "1e-19"}, "decimal places", id="too fine"),
        pytest.param("transfer", {"amount": True}, "Expected `decimal`", id="no number"),
        pytest.param("transfer", {"amount": 1000001, "toAddress": "0x1"}, "balance", id="too much"),
        pytest.param("transfer", {"creditId": "x"}, "credit x does not exist", id="no such credit"),
    ],
)
async def test_invalid_request_says_why_in_an_array(
    client: Client, action: str, changes: dict[str, Any], message: str
) -> None:
    token = await client.mint()
    credit = (await inventory(client, token))[0]
    body = {"creditId": credit["id"], "amount": 1} | changes
    target = f"{organization(client)}/inventory/requests/{action}"

    reply = await client.ask("POST", target, bearer=token, json=body)

    assert (reply.status, reply.json["error"]) == (400, "Bad Request")
    assert message in reply.json["message"][0]
    assert not client.emulator.world.credit_requests


@pytest.mark.parametrize(
    ("kwargs", "status"),
    [
        pytest.param({"data": b"{", "headers": [("Content-Type", "application/json")]}, 400),
        pytest.param({"data": b"{}", "headers": [("Content-Type", "text/plain")]}, 400),
        pytest.param({"data": BytesIO(b"x" * 2_000_000)}, 413),
        pytest.param({"json": {}, "headers": [("Content-Encoding", "gzip")]}, 415),
    ],
    ids=["broken", "not declared", "too big", "compressed"],
)
async def test_unreadable_body_is_refused(
    client: Client, kwargs: dict[str, Any], status: int
) -> None:
    target = f"{organization(client)}/inventory/requests/retire"

    reply = await client.ask("POST", target, bearer=await client.mint(), **kwargs)

    assert (reply.status, reply.json["statusCode"]) == (status, status)


async def test_certificate_is_a_pdf_download(client: Client) -> None:
    token = await client.mint()
    listed = await client.ask("GET", f"{organization(client)}/retirements", bearer=token)
    retirement = listed.json["retirements"][0]["id"]

    reply = await client.ask(
        "GET", f"{organization(client)}/retirements/{retirement}/pdf", bearer=token
    )

    assert reply.headers["Content-Type"] == "application/pdf"
    name = f'attachment; filename="retirement-{retirement}.pdf"'
    assert reply.headers["Content-Disposition"] == name
    assert reply.body.startswith(b"%PDF-1.4\n")
    table = int(reply.body.rpartition(b"startxref\n")[2].split()[0])
    assert reply.body[table:].startswith(b"xref\n")


async def test_certificate_of_another_organization_is_not_found(client: Client) -> None:
    other = client.installation(1).organization.id
    foreign = next(
        item.id for item in client.emulator.world.retirements.values()
        if item.organization_id == other
    )  # fmt: skip

    reply = await client.ask(
        "GET", f"{organization(client)}/retirements/{foreign}/pdf", bearer=await client.mint()
    )

    assert reply.status == 404


@pytest.mark.parametrize("tail", ["", "/inventory", "/retirements"])
async def test_head_answers_like_get_without_a_body(client: Client, tail: str) -> None:
    token = await client.mint()
    target = organization(client) + tail

    get = await client.ask("GET", target, bearer=token)
    head = await client.ask("HEAD", target, bearer=token)

    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(get.body))
