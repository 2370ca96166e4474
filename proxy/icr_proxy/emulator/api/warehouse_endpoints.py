"""`/organizations/{id}/warehouse`: credits are held for the app, then finished or let go.

Held for up to ten minutes (D), by the emulator's clock; whoever looks at a warehouse first lets
go of what is overdue. Statuses and bodies of all but the two lists were not seen (A).
"""

from decimal import Decimal
from typing import Final, cast

import msgspec

from icr_proxy.emulator.api.calls import (
    ApiResponse,
    Call,
    RetirementData,
    Route,
    json_answer,
    page,
    require_purpose,
)
from icr_proxy.emulator.api.shapes import Shapes
from icr_proxy.emulator.api_errors import invalid, not_found
from icr_proxy.emulator.registry.entities import Account, Reservation
from icr_proxy.emulator.registry.movements import Kind, Order, Portion, execute, portion
from icr_proxy.emulator.registry.world import World

HOLD_SECONDS: Final = 600.0  # "up to 10 minutes" (D)

_ACTIONS: Final = ("transfer", "retire", "transfer_retire")


class _Hold(msgspec.Struct, rename="camel"):
    credit_id: str
    organization_id: str
    amount: Decimal


class _Finish(msgspec.Struct, rename="camel"):
    receiver_id: str
    retirement_data: RetirementData | None = None


def release_overdue(world: World) -> None:
    """Return the credits of all overdue reservations to their warehouses."""
    overdue = [
        hold
        for hold in world.reservations.values()
        if not hold.is_complete and hold.expires_at <= world.now()
    ]
    for hold in overdue:
        _release(world, hold)


def list_credits(call: Call) -> ApiResponse:
    """List what the warehouse holds and nobody has reserved."""
    release_overdue(call.world)
    owner = call.params["id"]
    shape = Shapes(call.world.settings).warehouse_credit
    held = call.world.book.holdings(Account(owner, "warehouse"))
    development = "development" in call.query
    credits_ = [
        shape(call.world.batches[key], owner=owner, amount=amount)
        for key, amount in held.items()
        if call.world.batches[key].development == development
    ]
    return json_answer({"credits": credits_, "organizationId": owner})


def list_reservations(call: Call) -> ApiResponse:
    """List reservations, those that are complete included."""
    release_overdue(call.world)
    owner = call.params["id"]
    own = [hold for hold in call.world.reservations.values() if hold.organization_id == owner]
    shape = Shapes(call.world.settings).reservation
    return json_answer(page(call, items=own, name="reservations", shape=shape))


def reserve(call: Call) -> ApiResponse:
    """Hold credits."""
    release_overdue(call.world)
    world = call.world
    body = call.decode(_Hold)
    if body.organization_id not in world.organizations:
        raise invalid("organizationId must be an organization")
    wanted = portion(world, credit_id=body.credit_id, amount=body.amount)
    owner = call.params["id"]
    world.book.move(
        Account(owner, "warehouse"),
        target=Account(owner, "reserved"),
        credit_id=wanted.batch.id,
        amount=wanted.amount,
    )
    hold = Reservation(
        id=world.new_id("reservation"),
        organization_id=owner,
        batch=wanted.batch,
        amount=wanted.amount,
        created_at=world.now(),
        expires_at=world.now() + HOLD_SECONDS,
    )
    world.reservations[hold.id] = hold
    return json_answer(Shapes(world.settings).reservation(hold), status=201)


def finish(call: Call) -> ApiResponse:
    """Give the held credits to a receiver, retire them in the receiver's name, or both."""
    action = call.params["action"]
    if action not in _ACTIONS:
        raise invalid(f"action must be one of the following values: {', '.join(_ACTIONS)}")
    body = call.decode(_Finish)
    if body.receiver_id not in call.world.organizations:
        raise invalid("receiverId must be an organization")
    purpose = require_purpose(body.retirement_data, action=action)
    hold = _find_open_reservation(call)
    execute(
        call.world,
        Order(
            kind=cast("Kind", action),
            source=Account(hold.organization_id, "reserved"),
            target=Account(body.receiver_id, "inventory"),
            portions=(Portion(batch=hold.batch, amount=hold.amount),),
            purpose=purpose,
            installation_id=call.seen.installation_id,
        ),
    )
    hold.is_complete = True
    return json_answer(Shapes(call.world.settings).reservation(hold), status=201)


def cancel(call: Call) -> ApiResponse:
    """Let go of held credits."""
    hold = _find_open_reservation(call)
    _release(call.world, hold)
    return json_answer(Shapes(call.world.settings).reservation(hold))


def _find_open_reservation(call: Call) -> Reservation:
    release_overdue(call.world)
    hold = call.world.reservations.get(call.params["reservationId"])
    if hold is None or hold.organization_id != call.params["id"]:
        raise not_found("Reservation")
    if hold.is_complete:
        raise invalid("the reservation is complete already")
    return hold


def _release(world: World, hold: Reservation) -> None:
    world.book.move(
        Account(hold.organization_id, "reserved"),
        target=Account(hold.organization_id, "warehouse"),
        credit_id=hold.batch.id,
        amount=hold.amount,
    )
    del world.reservations[hold.id]


_STOCK: Final = "/organizations/{id}/warehouse/inventory"
_HOLDS: Final = f"{_STOCK}/reservations"
_HOLD: Final = f"{_HOLDS}/{{reservationId}}"
_VIEW: Final = ("organization_warehouse", "VIEW")
_WRITE: Final = ("organization_warehouse", "WRITE")

ROUTES: Final = (
    Route("GET", _STOCK, list_credits, "installation", _VIEW, "id"),
    Route("GET", _HOLDS, list_reservations, "installation", _VIEW, "id"),
    Route("POST", _HOLDS, reserve, "installation", _WRITE, "id"),
    Route("POST", f"{_HOLD}/{{action}}", finish, "installation", _WRITE, "id"),
    Route("DELETE", _HOLD, cancel, "installation", _WRITE, "id"),
)
