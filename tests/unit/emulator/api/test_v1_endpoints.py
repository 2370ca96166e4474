"""`/v1`: credits move and are destroyed, at once and as often as asked."""

from typing import Any

import pytest

from icr_proxy.emulator.registry.entities import Account
from tests.support.emulator_client import Client


@pytest.fixture
async def token(client: Client) -> str:
    return await client.mint()


def owner(client: Client, number: int = 0) -> str:
    return client.installation(number).organization.id


def first_credit(client: Client) -> str:
    return next(iter(client.emulator.world.book.holdings(Account(owner(client), "inventory"))))


def retirement(client: Client, amount: object = 1) -> dict[str, Any]:
    return {
        "fromId": owner(client),
        "reason": "Test",
        "beneficiaryName": "Nobody",
        "comment": "",
        "credit": {"id": first_credit(client), "amount": amount},
    }


async def test_request_sent_twice_retires_twice(client: Client, token: str) -> None:
    body = retirement(client)
    await client.ask("POST", "/v1/retire", bearer=token, json=body)

    reply = await client.ask("POST", "/v1/retire", bearer=token, json=body)

    ledger = client.emulator.world.ledger
    assert reply.json["success"] is True
    assert reply.json["transactionId"] == ledger[-1].transaction_id
    assert [(entry.kind, int(entry.amount)) for entry in ledger] == [("retire", 1)] * 2


async def test_retired_credits_are_listed(client: Client, token: str) -> None:
    await client.ask("POST", "/v1/retire", bearer=token, json=retirement(client, 0.5))

    listed = await client.ask("GET", "/v1/retirements", bearer=token)
    newest = listed.json["retirements"][-1]
    one = await client.ask("GET", f"/v1/retirements/{newest['id']}", bearer=token)
    stranger = await client.ask(
        "GET", f"/v1/retirements/{newest['id']}", bearer=await client.mint(1)
    )

    assert (newest["amount"], newest["beneficiary"]) == (0.5, "Nobody")
    assert one.json["retirement"] == newest
    assert stranger.status == 404


@pytest.mark.parametrize(
    "to",
    [
        "organization",
        {"id": "organization"},
        "0xabc",
        {"address": "0xabc"},
        "a@example.com",
        {"email": "a@example.com"},
    ],
    ids=str,
)
async def test_credits_go_to_entities_addresses_and_mail(
    client: Client, token: str, to: Any
) -> None:
    other = owner(client, 1)
    receiver = {"id": other} if to == {"id": "organization"} else to
    receiver = other if to == "organization" else receiver
    credit = {"creditId": first_credit(client), "amount": 3}
    body = {"to": receiver, "fromId": owner(client), "credits": [credit, credit]}

    reply = await client.ask("POST", "/v1/transfer", bearer=token, json=body)

    world = client.emulator.world
    assert reply.json["success"] is True
    assert [entry.amount for entry in world.ledger] == [3, 3]
    assert world.book.totals() == dict(world.book.issued)


async def test_all_of_an_order_happens_or_nothing(client: Client, token: str) -> None:
    credit = {"id": first_credit(client), "amount": 600_000}
    body = {"to": owner(client, 1), "fromId": owner(client), "credits": [credit, credit]}

    reply = await client.ask("POST", "/v1/transfer", bearer=token, json=body)

    assert reply.status == 400
    assert "amount exceeds balance" in reply.json["message"][0]
    assert not client.emulator.world.ledger


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"credits": []}, "credits should not be empty"),
        ({"credits": [{"amount": 1}]}, "credit id should not be empty"),
        ({"to": "nobody"}, "to must be"),
        ({"to": {}}, "to must be"),
        ({"to": 1}, "Expected `str | object`"),
    ],
)
async def test_invalid_transfer_is_refused(
    client: Client, token: str, changes: dict[str, Any], message: str
) -> None:
    body = {
        "to": owner(client, 1),
        "fromId": owner(client),
        "credits": [{"id": first_credit(client), "amount": 1}],
    }

    reply = await client.ask("POST", "/v1/transfer", bearer=token, json=body | changes)

    assert reply.status == 400
    assert message in reply.json["message"][0]


@pytest.mark.parametrize("path", ["transfer", "retire"])
async def test_credits_of_another_organization_cannot_be_moved(client: Client, path: str) -> None:
    body = retirement(client) | {"to": owner(client, 1), "credits": []}

    reply = await client.ask("POST", f"/v1/{path}", bearer=await client.mint(1), json=body)

    assert reply.json["message"] == "Forbidden resource"
    assert client.emulator.world.denied == {"wrong-organization": 1}


async def test_moving_needs_write(client: Client) -> None:
    permissions = {"organization_inventory": "REQUEST"}
    client.emulator.world.set_permissions(client.installation().id, permissions)

    reply = await client.ask(
        "POST", "/v1/retire", bearer=await client.mint(), json=retirement(client)
    )

    assert reply.status == 403
    assert client.emulator.world.denied == {"permission": 1}


async def test_app_token_moves_nothing(client: Client) -> None:
    token = await client.mint_for_app()

    reply = await client.ask("POST", "/v1/retire", bearer=token, json=retirement(client))

    assert reply.status == 403


async def test_transactions_are_shown_to_both_parties_only(client: Client, token: str) -> None:
    credit = {"id": first_credit(client), "amount": 1}
    body = {"to": owner(client, 1), "fromId": owner(client), "credits": [credit]}
    made = await client.ask("POST", "/v1/transfer", bearer=token, json=body)
    target = f"/v1/transactions/{made.json['transactionId']}"
    tokens = [token, await client.mint(1), await client.mint(2)]

    statuses = [(await client.ask("GET", target, bearer=item)).status for item in tokens]

    listed = await client.ask("GET", "/v1/transactions", bearer=token)
    of_entity = await client.ask("GET", f"/v1/{owner(client)}/transactions", bearer=token)
    assert statuses == [200, 200, 404]
    assert listed.json["transactions"][0]["state"] == "processed"
    assert of_entity.body == listed.body


async def test_inventory_names_the_entity(client: Client, token: str) -> None:
    reply = await client.ask("GET", f"/v1/{owner(client)}/inventory", bearer=token)

    entity = {"userId": None, "organizationId": owner(client), "id": owner(client)}
    assert reply.json["entity"] == entity
    assert len(reply.json["credits"]) == 2


async def test_projects_are_searched(client: Client, token: str) -> None:
    found = await client.ask("GET", "/v1/projects?search=MANGROVE&status=a&status=b", bearer=token)
    one = await client.ask("GET", f"/v1/projects/{found.json['projects'][0]['id']}", bearer=token)
    internal = await client.ask("GET", "/v1/utils/internal/projects?search=361", bearer=token)

    assert [item["num"] for item in found.json["projects"]] == ["361"]
    assert one.json == internal.json


@pytest.mark.parametrize(
    "target", ["/v1/projects/x", "/v1/utils/internal/projects?search=xyz", "/v1/transactions/x"]
)
async def test_unknown_thing_is_not_found(client: Client, token: str, target: str) -> None:
    reply = await client.ask("GET", target, bearer=token)

    assert (reply.status, reply.json["error"]) == (404, "Not Found")


async def test_subaccounts_open_and_close(client: Client, token: str) -> None:
    target = f"/v1/{owner(client)}/accounts"
    opened = await client.ask("POST", target, bearer=token, json={"name": "Second"})
    account = opened.json["account"]
    listed = await client.ask("GET", target, bearer=token)
    addresses = await client.ask("GET", f"/organizations/{owner(client)}/addresses", bearer=token)

    closed = await client.ask("DELETE", f"{target}/{account['id']}", bearer=token)
    again = await client.ask("DELETE", f"{target}/{account['id']}", bearer=token)

    assert (opened.status, account["type"]) == (201, "subaccount")
    assert [item["name"] for item in listed.json["accounts"]] == ["default", "Second"]
    assert [item["account"] for item in addresses.json["addresses"]] == ["default", "Second"]
    assert (closed.status, closed.json["account"], again.status) == (200, account, 404)


async def test_subaccount_needs_a_name(client: Client, token: str) -> None:
    target = f"/v1/{owner(client)}/accounts"

    reply = await client.ask("POST", target, bearer=token, json={"name": ""})

    assert reply.json["message"] == ["name should not be empty"]
