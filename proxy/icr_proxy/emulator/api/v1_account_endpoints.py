"""`/v1/{id}/accounts`: subaccounts of an entity (section 2.4 of the facts).

Which permission they need is not documented (A).
"""

from typing import Final

import msgspec

from icr_proxy.emulator.api.calls import Answer, Call, Route, json_answer
from icr_proxy.emulator.api.shapes import Json, Shapes
from icr_proxy.emulator.api_errors import invalid, not_found
from icr_proxy.emulator.registry.entities import Subaccount
from icr_proxy.emulator.registry.identities import chain_address


class _NewAccount(msgspec.Struct):
    name: str


def list_accounts(call: Call) -> Answer:
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


def open_account(call: Call) -> Answer:
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


def close_account(call: Call) -> Answer:
    """Close a subaccount: a DELETE that answers 200 with a body (D)."""
    account = call.world.subaccounts.get(call.params["accountId"])
    if account is None or account.owner_id != call.params["id"]:
        raise not_found("Account")
    del call.world.subaccounts[account.id]
    return json_answer({"account": Shapes(call.world.settings).subaccount(account)})


_ACCOUNTS: Final = "/v1/{id}/accounts"
_INFO: Final = ("organization_info", "VIEW")
_WRITE: Final = ("organization_inventory", "WRITE")

ROUTES: Final = (
    Route("GET", _ACCOUNTS, list_accounts, "installation", _INFO, "id"),
    Route("POST", _ACCOUNTS, open_account, "installation", _WRITE, "id"),
    Route("DELETE", f"{_ACCOUNTS}/{{accountId}}", close_account, "installation", _WRITE, "id"),
)
