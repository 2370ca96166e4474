"""`/app`: tokens are made and killed, installations are listed (section 2.1 of the facts)."""

from typing import Final

import msgspec

from icr_proxy.emulator.api.auth import bearer
from icr_proxy.emulator.api.calls import ApiResponse, Call, Route, json_answer, page
from icr_proxy.emulator.api.shapes import Shapes
from icr_proxy.emulator.api_errors import ApiError, not_found


class _NewUser(msgspec.Struct, rename="camel"):
    email: str
    full_name: str | None = None


class _NewOrganization(msgspec.Struct, rename="camel"):
    full_name: str
    type: str
    country_code: str | None = None


class _Signup(msgspec.Struct):
    user: _NewUser
    organization: _NewOrganization


def mint_for_app(call: Call) -> ApiResponse:
    """Make an app access token; its lifetime is not documented, here it is the same (A)."""
    settings = call.world.settings
    token = call.world.token_book.issue(
        now=call.world.now(), lifetime=settings.token_lifetime, permissions={}
    )
    call.world.mints["app"] += 1
    return json_answer(Shapes(settings).token(token), status=settings.mint_status)


def mint_for_installation(call: Call) -> ApiResponse:
    """Make an installation access token; the body may be absent or `{}` (D, V)."""
    settings = call.world.settings
    installation = call.world.installations.get(call.params["installationId"])
    if installation is None or installation.status == "uninstalled":
        raise ApiError(settings.unknown_installation_status, "Installation not found")
    if installation.status == "suspended":
        raise ApiError(403, "This installation has been suspended")
    token = call.world.token_book.issue(
        now=call.world.now(),
        lifetime=settings.token_lifetime,
        permissions=installation.permissions,
        installation_id=installation.id,
        organization_id=installation.organization.id,
    )
    call.world.mints[installation.id] += 1
    return json_answer(Shapes(settings).token(token), status=settings.mint_status)


def revoke_own_token(call: Call) -> ApiResponse:
    """Kill the very token in the header (D); the status is not documented (A)."""
    call.world.token_book.revoke(bearer(call.seen) or "")
    return ApiResponse(status=204)


def list_installations(call: Call) -> ApiResponse:
    """List active installations only (D)."""
    everyone = call.world.installations.values()
    active = [installation for installation in everyone if installation.status == "active"]
    shape = Shapes(call.world.settings).installation
    return json_answer(page(call, items=active, name="installations", shape=shape))


def read_installation(call: Call) -> ApiResponse:
    """Read one installation; a suspended one can be read, an uninstalled one is gone (A)."""
    installation = call.world.installations.get(call.params["installationId"])
    if installation is None or installation.status == "uninstalled":
        raise not_found("Installation")
    return json_answer(Shapes(call.world.settings).installation(installation))


def create_user_and_organization(call: Call) -> ApiResponse:
    """Create a pair on which the app is installed already (D-old, V)."""
    wish = call.decode(_Signup)
    installation = call.world.add_installation(name=wish.organization.full_name)
    shapes = Shapes(call.world.settings)
    payload = {
        "user": {"id": call.world.new_id("user"), "email": wish.user.email},
        "organization": shapes.organization(installation.organization),
        "installation": shapes.installation(installation),
    }
    return json_answer(payload, status=201)


_ONE: Final = "/app/installations/{installationId}"

ROUTES: Final = (
    Route("POST", "/app/accessTokens", mint_for_app, "jwt", faults="mints"),
    Route("POST", f"{_ONE}/accessTokens", mint_for_installation, "jwt", faults="mints"),
    Route("DELETE", "/app/installations/token", revoke_own_token, "any", faults="app"),
    Route("GET", "/app/installations", list_installations, "jwt", faults="app"),
    Route("GET", _ONE, read_installation, "jwt", faults="app"),
    Route(
        "POST",
        "/app/create/user/organization",
        create_user_and_organization,
        "jwt",
        faults="app",
    ),
)
