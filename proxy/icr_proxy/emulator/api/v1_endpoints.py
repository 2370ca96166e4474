"""`/v1` with its accounts (section 2.4 of the facts).

Whether it takes installation tokens is not said; here it does, within their organization (A).

Which permission they need is not documented (A).
"""

from decimal import Decimal
from typing import Final

import msgspec

from icr_proxy.emulator.api.auth import require_permission
from icr_proxy.emulator.api.calls import ApiResponse, Call, Route, json_answer, page
from icr_proxy.emulator.api.organization_endpoints import held_credits, retirement_shape
from icr_proxy.emulator.api.shapes import Json, Shapes
from icr_proxy.emulator.api_errors import forbidden, invalid, not_found
from icr_proxy.emulator.registry.entities import (
    Account,
    Project,
    Purpose,
    Subaccount,
    chain_address,
)
from icr_proxy.emulator.registry.movements import Order, Portion, execute, portion
from icr_proxy.emulator.registry.world import World


class _Credit(msgspec.Struct, rename="camel"):
    # How a credit is named inside of an order was not seen; both obvious ways work (A).
    amount: Decimal
    id: str | None = None
    credit_id: str | None = None


class _Receiver(msgspec.Struct):
    # By entity id, by chain address, or by e-mail: in escrow until claimed (D).
    id: str | None = None
    address: str | None = None
    email: str | None = None


class _Transfer(msgspec.Struct, rename="camel"):
    to: str | _Receiver
    from_id: str
    credits: list[_Credit]
    comment: str | None = None
    receipt_emails: list[str] | None = None


class _Retire(msgspec.Struct, rename="camel"):
    from_id: str
    reason: str
    beneficiary_name: str
    comment: str
    credit: _Credit
    to: str | _Receiver | None = None  # accepted; what it means is not documented
    receipt_emails: list[str] | None = None


def list_projects(call: Call) -> ApiResponse:
    """List public projects, all at once, filtered by `search` (D)."""
    shape = Shapes(call.world.settings).project
    return json_answer({"projects": [shape(project) for project in _search(call)]})


def read_project(call: Call) -> ApiResponse:
    """Read a public project (T)."""
    project = call.world.projects.get(call.params["projectId"])
    if project is None or not project.is_public:
        raise not_found("Project")
    return json_answer({"project": Shapes(call.world.settings).project(project)})


def find_internal(call: Call) -> ApiResponse:
    """Find one project; what `internal` adds is not documented."""
    found = _search(call)
    if not found:
        raise not_found("Project")
    return json_answer({"project": Shapes(call.world.settings).project(found[0])})


def list_inventory(call: Call) -> ApiResponse:
    """List an entity's credits (D)."""
    owner = call.params["id"]
    entity = {"userId": None, "organizationId": owner, "id": owner}
    return json_answer({"credits": held_credits(call, owner=owner), "entity": entity})


def transfer(call: Call) -> ApiResponse:
    """Move credits; at once, and again if asked again (D)."""
    body = call.decode(_Transfer)
    _check_source(call, body.from_id)
    if not body.credits:
        raise invalid("credits should not be empty")
    return _ordered(
        call,
        Order(
            kind="transfer",
            source=Account(body.from_id, "inventory"),
            target=_receiver(call.world, body.to),
            portions=tuple(_portion(call.world, item) for item in body.credits),
            comment=body.comment,
            installation_id=call.seen.installation_id,
        ),
    )


def retire(call: Call) -> ApiResponse:
    """Destroy credits; at once, and again if asked again (D)."""
    body = call.decode(_Retire)
    _check_source(call, body.from_id)
    return _ordered(
        call,
        Order(
            kind="retire",
            source=Account(body.from_id, "inventory"),
            portions=(_portion(call.world, body.credit),),
            purpose=Purpose(
                reason=body.reason, beneficiary=body.beneficiary_name, comment=body.comment
            ),
            comment=body.comment,
            installation_id=call.seen.installation_id,
        ),
    )


def list_transactions(call: Call) -> ApiResponse:
    """List the transactions of the token's organization, or of the entity that the path names."""
    owner = call.own_organization()
    own = [t for t in call.world.transactions.values() if owner in (t.organization_id, t.target)]
    shape = Shapes(call.world.settings).transaction
    return json_answer(page(call, items=own, name="transactions", shape=shape))


def read_transaction(call: Call) -> ApiResponse:
    """Read a transaction that the token's organization takes part in."""
    owner = call.own_organization()
    found = call.world.transactions.get(call.params["transactionId"])
    if found is None or owner not in (found.organization_id, found.target):
        raise not_found("Transaction")
    return json_answer({"transaction": Shapes(call.world.settings).transaction(found)})


def list_retirements(call: Call) -> ApiResponse:
    """List the retirements of the token's organization."""
    owner = call.own_organization()
    own = [item for item in call.world.retirements.values() if item.organization_id == owner]
    listing = page(
        call, items=own, name="retirements", shape=lambda item: retirement_shape(call, item)
    )
    return json_answer(listing)


def read_retirement(call: Call) -> ApiResponse:
    """Read a retirement of the token's organization."""
    owner = call.own_organization()
    found = call.world.retirements.get(call.params["retirementId"])
    if found is None or found.organization_id != owner:
        raise not_found("Retirement")
    return json_answer({"retirement": retirement_shape(call, found)})


def _ordered(call: Call, order: Order) -> ApiResponse:
    done = execute(call.world, order)
    # 200, though the framework's default is 201: no other response is declared anywhere (D).
    return json_answer({"transactionId": done.transaction.id, "success": True})


def _check_source(call: Call, source: str) -> None:
    if source != call.own_organization():
        raise forbidden("wrong-organization")
    require_permission(call, "organization_inventory", "WRITE")


def _portion(world: World, item: _Credit) -> Portion:
    credit_id = item.id or item.credit_id
    if credit_id is None:
        raise invalid("credit id should not be empty")
    return portion(world, credit_id=credit_id, amount=item.amount)


def _receiver(world: World, to: str | _Receiver) -> Account:
    name = to if isinstance(to, str) else to.id or to.address or to.email or ""
    if name in world.organizations:
        return Account(name, "inventory")
    if name.lower().startswith("0x") or "@" in name:
        return Account(name, "outside")
    raise invalid("to must be an entity id, a chain address or an e-mail address")


def _search(call: Call) -> list[Project]:
    wanted = call.query.get("search", [""])[-1].lower()
    projects = call.world.projects.values()
    return [p for p in projects if p.is_public and wanted in f"{p.num} {p.full_name}".lower()]


_INFO: Final = ("organization_info", "VIEW")
_INVENTORY: Final = ("organization_inventory", "VIEW")

ROUTES: Final = (
    Route("GET", "/v1/projects", list_projects, "any"),
    Route("GET", "/v1/projects/{projectId}", read_project, "any"),
    Route("GET", "/v1/utils/internal/projects", find_internal, "any"),
    Route("POST", "/v1/transfer", transfer, "installation"),
    Route("POST", "/v1/retire", retire, "installation"),
    Route("GET", "/v1/transactions", list_transactions, "installation", _INVENTORY),
    Route("GET", "/v1/transactions/{transactionId}", read_transaction, "installation", _INVENTORY),
    Route("GET", "/v1/retirements", list_retirements, "installation", _INFO),
    Route("GET", "/v1/retirements/{retirementId}", read_retirement, "installation", _INFO),
    Route("GET", "/v1/{id}/inventory", list_inventory, "installation", _INVENTORY, "id"),
    Route("GET", "/v1/{id}/transactions", list_transactions, "installation", _INVENTORY, "id"),
)


class _NewAccount(msgspec.Struct):
    name: str


def list_accounts(call: Call) -> ApiResponse:
    """List the default account and the subaccounts."""
    organization = call.world.organizations[call.params["id"]]
    default: Json = {
        "id": organization.id,
        "type": "default",
        "name": "default",
        "address": organization.address,
        "ownerId": organization.id,
    }
    shape = Shapes(call.world.settings).subaccount
    owned = [a for a in call.world.subaccounts.values() if a.owner_id == organization.id]
    return json_answer({"accounts": [default, *(shape(account) for account in owned)]})


def open_account(call: Call) -> ApiResponse:
    """Open a subaccount."""
    name = call.decode(_NewAccount).name
    if not name:
        raise invalid("name should not be empty")
    account_id = call.world.new_id("account")
    account = Subaccount(
        id=account_id,
        name=name,
        address=chain_address(account_id),
        owner_id=call.params["id"],
        created_at=call.world.now(),
    )
    call.world.subaccounts[account.id] = account
    return json_answer({"account": Shapes(call.world.settings).subaccount(account)}, status=201)


def close_account(call: Call) -> ApiResponse:
    """Close a subaccount: a DELETE that answers 200 with a body (D)."""
    account = call.world.subaccounts.get(call.params["accountId"])
    if account is None or account.owner_id != call.params["id"]:
        raise not_found("Account")
    del call.world.subaccounts[account.id]
    return json_answer({"account": Shapes(call.world.settings).subaccount(account)})


_ACCOUNTS: Final = "/v1/{id}/accounts"
_WRITE: Final = ("organization_inventory", "WRITE")

ACCOUNT_ROUTES: Final = (
    Route("GET", _ACCOUNTS, list_accounts, "installation", _INFO, "id"),
    Route("POST", _ACCOUNTS, open_account, "installation", _WRITE, "id"),
    Route("DELETE", f"{_ACCOUNTS}/{{accountId}}", close_account, "installation", _WRITE, "id"),
)
