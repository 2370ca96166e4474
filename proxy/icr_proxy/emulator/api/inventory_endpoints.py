"""`/organizations/{id}/inventory` and requests about it (section 2.2 of the facts).

A request moves nothing until an admin approves it, which the control API does. The endpoint that
transacts at once exists, but its path and body were not seen (D): it is not here.
"""

from decimal import Decimal
from typing import Final, cast

import msgspec

from icr_proxy.emulator.api.calls import Answer, Call, Route, json_answer
from icr_proxy.emulator.api.orders import RetirementData, needed_purpose
from icr_proxy.emulator.api.paging import page
from icr_proxy.emulator.api.shapes import Json, Shapes
from icr_proxy.emulator.api_errors import invalid, not_found
from icr_proxy.emulator.registry.credit_book import Account, InsufficientCreditsError
from icr_proxy.emulator.registry.entities import CreditRequest
from icr_proxy.emulator.registry.movements import Kind, Order, Portion, carry_out, portion
from icr_proxy.emulator.registry.world import World

ACTIONS: Final = ("transfer", "retire", "transfer_retire")


class _Wish(msgspec.Struct, rename="camel"):
    credit_id: str
    amount: Decimal
    to_organization_id: str | None = None
    to_address: str | None = None
    retirement_data: RetirementData | None = None


def held_credits(call: Call, *, owner: str) -> list[Json]:
    """Shape what is held; `?development` selects another inventory by its mere presence (D)."""
    development = "development" in call.query
    world = call.world
    shape = Shapes(world.settings).credit
    return [
        shape(world.batches[key], owner=owner, amount=amount, supply=world.book.issued[key])
        for key, amount in world.book.holdings(Account(owner, "inventory")).items()
        if world.batches[key].development == development
    ]


def list_inventory(call: Call) -> Answer:
    """List credits held."""
    owner = call.params["id"]
    return json_answer({"credits": held_credits(call, owner=owner), "organizationId": owner})


def list_requests(call: Call) -> Answer:
    """List requests; `limit` and `page` may be absent, since the vendor omits them (V)."""
    own = [
        wish
        for wish in call.world.credit_requests.values()
        if wish.organization_id == call.params["id"]
    ]
    shape = Shapes(call.world.settings).credit_request
    return json_answer(page(call, items=own, name="creditRequests", shape=shape))


def create_request(call: Call) -> Answer:
    """Ask for a transfer, a retirement, or both (V); status and body are ours (A)."""
    action = call.params["action"]
    if action not in ACTIONS:
        raise invalid(f"action must be one of the following values: {', '.join(ACTIONS)}")
    body = call.decode(_Wish)
    wanted = portion(call.world, credit_id=body.credit_id, amount=body.amount)
    purpose = needed_purpose(body.retirement_data, action=action)
    if action != "retire" and not (body.to_organization_id or body.to_address):
        raise invalid("toOrganizationId or toAddress should not be empty")
    owner = call.params["id"]
    _check_target(call.world, body.to_organization_id)
    _check_cover(call.world, owner=owner, wanted=wanted)
    wish = CreditRequest(
        id=call.world.new_id("credit-request"),
        action=action,
        batch=wanted.batch,
        amount=wanted.amount,
        organization_id=owner,
        created_at=call.world.now(),
        to_organization_id=body.to_organization_id,
        to_address=body.to_address,
        purpose=purpose,
    )
    call.world.credit_requests[wish.id] = wish
    return json_answer(Shapes(call.world.settings).credit_request(wish), status=201)


def approve(world: World, request_id: str) -> CreditRequest:
    """Do what was asked for, as an admin of the organization would in the dashboard."""
    wish = world.credit_requests.get(request_id)
    if wish is None:
        raise not_found("Credit request")
    if wish.state != "pending":
        raise invalid(f"the request is {wish.state} already")
    done = carry_out(
        world,
        Order(
            kind=cast("Kind", wish.action),  # checked when the request was made
            source=Account(wish.organization_id, "inventory"),
            target=_target(wish),
            portions=(Portion(batch=wish.batch, amount=wish.amount),),
            purpose=wish.purpose,
        ),
    )
    wish.state = "processed"
    wish.transaction_id = done.transaction.id
    wish.retirement_id = done.retirements[0].id if done.retirements else None
    return wish


def _target(wish: CreditRequest) -> Account | None:
    if wish.action == "retire":
        return None
    if wish.to_organization_id is not None:
        return Account(wish.to_organization_id, "inventory")
    return Account(wish.to_address or "", "outside")


def _check_target(world: World, organization_id: str | None) -> None:
    if organization_id is not None and organization_id not in world.organizations:
        raise invalid("toOrganizationId must be an organization")


def _check_cover(world: World, *, owner: str, wanted: Portion) -> None:
    credit_id = wanted.batch.id
    held = world.book.balance(Account(owner, "inventory"), credit_id=credit_id)
    if wanted.amount > held:
        raise InsufficientCreditsError(credit_id=credit_id, wanted=wanted.amount, held=held)


_INVENTORY: Final = "/organizations/{id}/inventory"
_VIEW: Final = ("organization_inventory", "VIEW")
_REQUEST: Final = ("organization_inventory", "REQUEST")

ROUTES: Final = (
    Route("GET", _INVENTORY, list_inventory, "installation", _VIEW, "id"),
    Route("GET", f"{_INVENTORY}/requests", list_requests, "installation", _VIEW, "id"),
    Route(
        "POST", f"{_INVENTORY}/requests/{{action}}", create_request, "installation", _REQUEST, "id"
    ),
)
