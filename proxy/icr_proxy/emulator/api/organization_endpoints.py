"""`/organizations/{id}` and its retirements (section 2.2 of the facts)."""

from typing import Final

from icr_proxy.emulator.api.calls import Answer, Call, Route, json_answer
from icr_proxy.emulator.api.certificates import certificate, find_retirement
from icr_proxy.emulator.api.shapes import Json, Shapes
from icr_proxy.emulator.registry.entities import Retirement


def read_organization(call: Call) -> Answer:
    """Read the token's own organization."""
    organization = call.world.organizations[call.params["id"]]
    return json_answer(Shapes(call.world.settings).organization(organization))


def read_addresses(call: Call) -> Answer:
    """Read chain addresses; the documentation shows `Organization` here, evidently by mistake (D).

    That schema is kept and the addresses, which it was meant to have, are added (A).
    """
    organization = call.world.organizations[call.params["id"]]
    shape = Shapes(call.world.settings).organization(organization)
    owned = [a for a in call.world.subaccounts.values() if a.owner_id == organization.id]
    addresses = [{"account": "default", "address": organization.address}]
    addresses += [{"account": account.name, "address": account.address} for account in owned]
    return json_answer({**shape, "addresses": addresses})


def list_retirements(call: Call) -> Answer:
    """List the organization's retirements, all at once (V)."""
    owner = call.params["id"]
    own = [item for item in call.world.retirements.values() if item.organization_id == owner]
    return json_answer({"retirements": [retirement_shape(call, item) for item in own]})


def download_certificate(call: Call) -> Answer:
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
