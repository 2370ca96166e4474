"""`/organizations/{id}`: inventory, retirements and their PDF (section 2.2 of the facts).

A request moves nothing until an admin approves it, which the control API does. The endpoint that
transacts at once exists, but its path and body were not seen (D): it is not here.
"""

from collections.abc import Sequence
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
from icr_proxy.emulator.api.shapes import Json, Shapes, amount_number
from icr_proxy.emulator.api_errors import invalid, not_found
from icr_proxy.emulator.registry.entities import (
    Account,
    CreditRequest,
    InsufficientCreditsError,
    Retirement,
)
from icr_proxy.emulator.registry.movements import Kind, Order, Portion, execute, portion
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


def list_inventory(call: Call) -> ApiResponse:
    """List credits held."""
    owner = call.params["id"]
    return json_answer({"credits": held_credits(call, owner=owner), "organizationId": owner})


def list_requests(call: Call) -> ApiResponse:
    """List requests; `limit` and `page` may be absent, since the vendor omits them (V)."""
    own = [
        wish
        for wish in call.world.credit_requests.values()
        if wish.organization_id == call.params["id"]
    ]
    shape = Shapes(call.world.settings).credit_request
    return json_answer(page(call, items=own, name="creditRequests", shape=shape))


def create_request(call: Call) -> ApiResponse:
    """Ask for a transfer, a retirement, or both (V); status and body are ours (A)."""
    action = call.params["action"]
    if action not in ACTIONS:
        raise invalid(f"action must be one of the following values: {', '.join(ACTIONS)}")
    body = call.decode(_Wish)
    wanted = portion(call.world, credit_id=body.credit_id, amount=body.amount)
    purpose = require_purpose(body.retirement_data, action=action)
    if action != "retire" and not (body.to_organization_id or body.to_address):
        raise invalid("toOrganizationId or toAddress should not be empty")
    owner = call.params["id"]
    _check_target(call.world, body.to_organization_id)
    _check_balance(call.world, owner=owner, wanted=wanted)
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
    done = execute(
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


def _check_balance(world: World, *, owner: str, wanted: Portion) -> None:
    credit_id = wanted.batch.id
    held = world.book.balance(Account(owner, "inventory"), credit_id=credit_id)
    if wanted.amount > held:
        raise InsufficientCreditsError(credit_id=credit_id, wanted=wanted.amount, held=held)


_INVENTORY: Final = "/organizations/{id}/inventory"
_VIEW: Final = ("organization_inventory", "VIEW")
_REQUEST: Final = ("organization_inventory", "REQUEST")

INVENTORY_ROUTES: Final = (
    Route("GET", _INVENTORY, list_inventory, "installation", _VIEW, "id"),
    Route("GET", f"{_INVENTORY}/requests", list_requests, "installation", _VIEW, "id"),
    Route(
        "POST", f"{_INVENTORY}/requests/{{action}}", create_request, "installation", _REQUEST, "id"
    ),
)


_TOP = 760
_LEADING = 22


def render(lines: Sequence[str]) -> bytes:
    """Write lines of text on one page."""
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R /Resources 6 0 R >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        _stream(lines),
        b"<< /Font << /F1 4 0 R >> >>",
    )
    # The marker of high bytes tells tools that the file is binary (ISO 32000-1, 7.5.2).
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for offset in offsets:
        out += b"%010d 00000 n \n" % offset
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\n" % (len(objects) + 1)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % table)


def _stream(lines: Sequence[str]) -> bytes:
    text = b"BT /F1 12 Tf %d TL 60 %d Td\n" % (_LEADING, _TOP)
    for line in lines:
        text += b"(%b) Tj T*\n" % _escaped(line)
    text += b"ET"
    return b"<< /Length %d >>\nstream\n%b\nendstream" % (len(text), text)


def _escaped(line: str) -> bytes:
    raw = line.encode("latin-1", "replace")
    for special in (b"\\", b"(", b")"):
        raw = raw.replace(special, b"\\" + special)
    return raw.replace(b"\r", b" ").replace(b"\n", b" ")


def find_retirement(call: Call, *, owner: str | None = None) -> Retirement:
    """Find the retirement that the path names; with `owner`, only if it is theirs."""
    retirement = call.world.retirements.get(call.params["retirementId"])
    if retirement is None or owner not in (None, retirement.organization_id):
        raise not_found("Retirement")
    return retirement


def certificate(call: Call, *, retirement: Retirement) -> ApiResponse:
    """Print a certificate."""
    lines = (
        "Certificate of retirement (ICR emulator, no real credits)",
        f"Retirement: {retirement.id}",
        f"Date: {Shapes(call.world.settings).date(retirement.created_at)}",
        f"Amount: {amount_number(retirement.amount)} t CO2e",
        f"Serialization: {retirement.batch.serialization}",
        f"Project: {retirement.batch.project.full_name}",
        f"Beneficiary: {retirement.purpose.beneficiary}",
        f"Reason: {retirement.purpose.reason}",
    )
    name = f"retirement-{retirement.id}.pdf"
    return ApiResponse(
        body=render(lines),
        headers=(
            ("Content-Type", "application/pdf"),
            ("Content-Disposition", f'attachment; filename="{name}"'),
            ("ETag", f'"{retirement.id}"'),
        ),
    )


def read_organization(call: Call) -> ApiResponse:
    """Read the token's own organization."""
    organization = call.world.organizations[call.params["id"]]
    return json_answer(Shapes(call.world.settings).organization(organization))


def read_addresses(call: Call) -> ApiResponse:
    """Read chain addresses; the documentation shows `Organization` here, evidently by mistake (D).

    That schema is kept and the addresses, which it was meant to have, are added (A).
    """
    organization = call.world.organizations[call.params["id"]]
    shape = Shapes(call.world.settings).organization(organization)
    owned = [a for a in call.world.subaccounts.values() if a.owner_id == organization.id]
    addresses = [{"account": "default", "address": organization.address}]
    addresses += [{"account": account.name, "address": account.address} for account in owned]
    return json_answer({**shape, "addresses": addresses})


def list_retirements(call: Call) -> ApiResponse:
    """List the organization's retirements, all at once (V)."""
    owner = call.params["id"]
    own = [item for item in call.world.retirements.values() if item.organization_id == owner]
    return json_answer({"retirements": [retirement_shape(call, item) for item in own]})


def download_certificate(call: Call) -> ApiResponse:
    """Download the PDF of one of the organization's retirements (V)."""
    retirement = find_retirement(call, owner=call.params["id"])
    return certificate(call, retirement=retirement)


def retirement_shape(call: Call, retirement: Retirement) -> Json:
    """Shape a retirement with its owner."""
    owner = call.world.organizations.get(retirement.organization_id)
    return Shapes(call.world.settings).retirement(retirement, owner=owner)


_ORG: Final = "/organizations/{id}"
_INFO: Final = ("organization_info", "VIEW")

ROUTES: Final = (
    Route("GET", _ORG, read_organization, "installation", _INFO, "id"),
    Route("GET", f"{_ORG}/addresses", read_addresses, "installation", _INFO, "id"),
    Route("GET", f"{_ORG}/retirements", list_retirements, "installation", _INFO, "id"),
    Route(
        "GET",
        f"{_ORG}/retirements/{{retirementId}}/pdf",
        download_certificate,
        "installation",
        _INFO,  # the permission is inferred (I)
        "id",
    ),
)
