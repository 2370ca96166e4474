"""Warehouse credits are held for ten minutes, then finished or returned."""

from typing import Any

import pytest

from tests.support.emulator_client import NOW, Client, HandClock

PURPOSE = {"reason": "Test", "beneficiaryName": "Nobody"}


class Warehouse:
    """The warehouse of the first organization."""

    def __init__(self, client: Client, token: str) -> None:
        self.client = client
        self.token = token
        self.owner = client.installation().organization.id
        self.target = f"/organizations/{self.owner}/warehouse/inventory"

    async def amount(self) -> float:
        reply = await self.client.ask("GET", self.target, bearer=self.token)
        return float(reply.json["credits"][0]["amount"])

    async def reserve(self, amount: float) -> Any:
        listed = await self.client.ask("GET", self.target, bearer=self.token)
        body = {
            "creditId": listed.json["credits"][0]["id"],
            "organizationId": self.owner,
            "amount": amount,
        }
        target = f"{self.target}/reservations"
        reply = await self.client.ask("POST", target, bearer=self.token, json=body)
        return reply.json

    async def reservations(self) -> list[Any]:
        reply = await self.client.ask("GET", f"{self.target}/reservations", bearer=self.token)
        return list(reply.json["reservations"])

    async def finish(self, hold: str, action: str, **body: object) -> tuple[int, Any]:
        target = f"{self.target}/reservations/{hold}/{action}"
        reply = await self.client.ask("POST", target, bearer=self.token, json=body)
        return reply.status, reply.json


@pytest.fixture
async def warehouse(client: Client) -> Warehouse:
    return Warehouse(client, await client.mint())


async def test_reserved_credits_are_held_for_ten_minutes(
    warehouse: Warehouse, clock: HandClock
) -> None:
    hold = await warehouse.reserve(100.25)
    held = await warehouse.amount()
    clock.now = NOW + 599
    still_held = await warehouse.amount()
    clock.now = NOW + 600

    returned = await warehouse.amount()

    assert hold["reservedToDate"] == "2027-01-15T08:10:00.000Z"
    assert (held, still_held, returned) == (999_899.75, 999_899.75, 1_000_000)
    assert await warehouse.reservations() == []


async def test_cancelled_reservation_returns_its_credits(warehouse: Warehouse) -> None:
    hold = await warehouse.reserve(5)

    reply = await warehouse.client.ask(
        "DELETE", f"{warehouse.target}/reservations/{hold['id']}", bearer=warehouse.token
    )

    assert reply.status == 200
    assert await warehouse.amount() == 1_000_000


@pytest.mark.parametrize(
    ("action", "kinds"),
    [
        ("transfer", ["transfer"]),
        ("retire", ["transfer", "retire"]),
        ("transfer_retire", ["transfer", "retire"]),
    ],
)
async def test_finished_reservation_moves_credits_once(
    warehouse: Warehouse, action: str, kinds: list[str]
) -> None:
    receiver = warehouse.client.installation(1).organization.id
    hold = await warehouse.reserve(5)
    done, _ = await warehouse.finish(
        hold["id"], action, receiverId=receiver, retirementData=PURPOSE
    )

    again, _ = await warehouse.finish(
        hold["id"], action, receiverId=receiver, retirementData=PURPOSE
    )

    world = warehouse.client.emulator.world
    assert (done, again) == (201, 400)
    assert [entry.kind for entry in world.ledger] == kinds
    assert world.ledger[-1].target == receiver
    assert world.ledger[0].installation_id == warehouse.client.installation().id
    assert [item["isComplete"] for item in await warehouse.reservations()] == [True]


async def test_overdue_reservation_cannot_be_finished(
    warehouse: Warehouse, clock: HandClock
) -> None:
    hold = await warehouse.reserve(5)
    clock.now = NOW + 600

    status, _ = await warehouse.finish(hold["id"], "transfer", receiverId=warehouse.owner)

    assert status == 404
    assert not warehouse.client.emulator.world.ledger


@pytest.mark.parametrize(
    ("action", "body", "message"),
    [
        ("burn", {}, "action must be one of"),
        ("transfer", {}, "missing required field `receiverId`"),
        ("transfer", {"receiverId": "x"}, "receiverId must be"),
        ("retire", {}, "missing required field `receiverId`"),
    ],
)
async def test_invalid_finish_is_refused(
    warehouse: Warehouse, action: str, body: dict[str, object], message: str
) -> None:
    hold = await warehouse.reserve(5)

    status, answer = await warehouse.finish(hold["id"], action, **body)

    assert status == 400
    assert message in answer["message"][0]


async def test_retiring_needs_a_purpose(warehouse: Warehouse) -> None:
    hold = await warehouse.reserve(5)

    status, answer = await warehouse.finish(hold["id"], "retire", receiverId=warehouse.owner)

    assert (status, answer["message"]) == (400, ["retirementData should not be empty"])


async def test_reserving_more_than_there_is_reserves_nothing(warehouse: Warehouse) -> None:
    answer = await warehouse.reserve(1_000_001)

    assert answer["statusCode"] == 400
    assert await warehouse.amount() == 1_000_000


async def test_reserving_for_nobody_is_refused(warehouse: Warehouse) -> None:
    body = {"creditId": "x", "organizationId": "x", "amount": 1}

    reply = await warehouse.client.ask(
        "POST", f"{warehouse.target}/reservations", bearer=warehouse.token, json=body
    )

    assert reply.json["message"] == ["organizationId must be an organization"]
