"""May this request do that? Version, credential, organization, permission: in this order.

Each denial counts under a reason in `World.denied`, so that a test can prove that none happened.
"""

import re
from typing import Final

from icr_proxy.emulator.api.app_jwt import JwtRejectedError, JwtRules, verify
from icr_proxy.emulator.api.calls import Call, Route
from icr_proxy.emulator.api_errors import TOKEN_INVALID, ApiError, forbidden
from icr_proxy.emulator.registry.credentials import AccessToken
from icr_proxy.emulator.registry.world import World
from icr_proxy.emulator.traffic import SeenRequest

VERSIONS: Final = ("2023-06-16",)  # the only version ever listed (D-old)

# WRITE includes REQUEST includes VIEW (A).
_LEVELS: Final = {"VIEW": 1, "REQUEST": 2, "WRITE": 3}

# Twice is a mistake of the sender; refusing it makes a proxy's mistake visible (A).
_SINGLE_HEADERS: Final = ("x-icr-api-version", "authorization", "host")

_BEARER: Final = re.compile(r"bearer +([^\s,]+)", re.IGNORECASE)


def check_headers(seen: SeenRequest) -> None:
    """Refuse repeated headers and unsupported versions, with 400 (D-old)."""
    for name in _SINGLE_HEADERS:
        if len(seen.values(name)) > 1:
            raise ApiError(400, f"Header {name} must not be repeated", reason="repeated-header")
    for version in seen.values("x-icr-api-version"):
        if version not in VERSIONS:
            raise ApiError(400, f"Unsupported API version {version}")


def admit(world: World, *, route: Route, seen: SeenRequest) -> AccessToken | None:
    """Check the credential that the route demands; give the access token if it is one."""
    if route.credential == "none":
        return None
    if route.credential == "jwt":
        _check_jwt(world, seen)
        return None
    token = _live_token(world, seen)
    seen.installation_id = token.installation_id
    return token


def check_scope(route: Route, *, call: Call) -> None:
    """Refuse what is another organization's, or not permitted."""
    if route.credential == "installation":
        own = call.own_organization()
        if route.scope is not None and call.params[route.scope] != own:
            raise forbidden("wrong-organization")
    if route.permission is not None:
        require_permission(call, *route.permission)


def require_permission(call: Call, name: str, level: str) -> None:
    """Refuse a token that was not granted this level."""
    granted = "" if call.token is None else call.token.permissions.get(name, "")
    if _LEVELS.get(granted, 0) < _LEVELS[level]:
        raise forbidden("permission")


def bearer(seen: SeenRequest) -> str | None:
    """Take the credential out of the `Authorization` header."""
    found = _BEARER.fullmatch("".join(seen.values("authorization")).strip())
    return None if found is None else found[1]


def _check_jwt(world: World, seen: SeenRequest) -> None:
    settings = world.settings
    rules = JwtRules(
        app_id=settings.app_id,
        leeway=settings.jwt_leeway,
        require_alg_claim=settings.require_alg_claim,
    )
    try:
        text = bearer(seen) or ""
        verify(text, keys=world.keys.active.values(), rules=rules, now=world.now())
    except JwtRejectedError as exc:
        raise ApiError(
            settings.bad_jwt_status, "A valid App JWT is required", reason=exc.reason
        ) from exc


def _live_token(world: World, seen: SeenRequest) -> AccessToken:
    text = bearer(seen)
    if text is None:
        raise _dead_token(world, "missing")
    token = world.token_book.find(text, now=world.now())
    if token is None:
        raise _dead_token(world, world.token_book.cause_of_death(text))
    if token.installation_id is not None:
        status = world.installations[token.installation_id].status
        if status != "active":
            raise _dead_token(world, status)
    return token


def _dead_token(world: World, why: str) -> ApiError:
    # Which status this has is the best known of the unknowns: 403 was seen (T).
    return ApiError(world.settings.invalid_token_status, TOKEN_INVALID, reason=f"token-{why}")
