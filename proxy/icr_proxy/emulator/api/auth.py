"""Authorization of a request: version, credential, organization, permission, in this order.

RS256 only, `iss` is the App ID, `exp` at most ten minutes ahead of the server's clock (D). There
is no `kid`, so every active key is tried (I).

Each denial counts under a reason in `World.denied`, so that a test can prove that none happened.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.types import Options

from icr_proxy.emulator.api.calls import Call, Route
from icr_proxy.emulator.api_errors import TOKEN_INVALID, ApiError, forbidden
from icr_proxy.emulator.registry.credentials import IssuedToken
from icr_proxy.emulator.registry.world import World
from icr_proxy.emulator.traffic import SeenRequest

MAX_AHEAD: Final = 600.0  # seconds; the vendor uses them all, the proxy should not (D, V)

# The claims are judged here, against the emulator's clock; PyJWT judges by the machine's.
_SIGNATURE_ONLY: Final[Options] = {
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


class JwtRejectedError(Exception):
    """The JWT is not acceptable; `reason` is a short name for why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRules:
    """What the emulator demands of a JWT."""

    app_id: str
    leeway: float
    require_alg_claim: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    claims: Mapping[str, Any]
    rules: JwtRules
    now: float

    def number(self, name: str) -> float:
        """Give a NumericDate; call only after its presence was checked."""
        return float(self.claims[name])


def _lacks_number(case: _Case, name: str) -> bool:
    value = case.claims.get(name)
    return isinstance(value, bool) or not isinstance(value, int | float)


# Read from the top; the first that holds is the reason.
_REASONS: Final[tuple[tuple[str, Callable[[_Case], bool]], ...]] = (
    ("jwt-iss", lambda case: case.claims.get("iss") != case.rules.app_id),
    ("jwt-iat-missing", lambda case: _lacks_number(case, "iat")),
    ("jwt-exp-missing", lambda case: _lacks_number(case, "exp")),
    ("jwt-iat-future", lambda case: case.number("iat") > case.now + case.rules.leeway),
    ("jwt-expired", lambda case: case.number("exp") <= case.now - case.rules.leeway),
    (
        "jwt-exp-too-far",
        lambda case: case.number("exp") > case.now + MAX_AHEAD + case.rules.leeway,
    ),
    (
        "jwt-alg-claim",
        lambda case: case.rules.require_alg_claim and case.claims.get("alg") != "RS256",
    ),
)


def verify(token: str, *, keys: Iterable[RSAPublicKey], rules: JwtRules, now: float) -> None:
    """Return if the JWT is acceptable, raise `JwtRejectedError` if not."""
    case = _Case(claims=_signed_claims(token, keys), rules=rules, now=now)
    for reason, holds in _REASONS:
        if holds(case):
            raise JwtRejectedError(reason)


def _signed_claims(token: str, keys: Iterable[RSAPublicKey]) -> Mapping[str, Any]:
    if not token:
        raise JwtRejectedError("jwt-missing")
    for key in keys:
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=["RS256"], options=_SIGNATURE_ONLY
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.InvalidAlgorithmError as exc:
            raise JwtRejectedError("jwt-algorithm") from exc
        except jwt.PyJWTError as exc:
            raise JwtRejectedError("jwt-malformed") from exc
        return claims
    raise JwtRejectedError("jwt-signature")


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


def authenticate(world: World, *, route: Route, seen: SeenRequest) -> IssuedToken | None:
    """Check the credential that the route requires; return the access token if it is one."""
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


def _live_token(world: World, seen: SeenRequest) -> IssuedToken:
    text = bearer(seen)
    if text is None:
        raise _token_refused(world, "missing")
    token = world.token_book.lookup(text, now=world.now())
    if token is None:
        raise _token_refused(world, world.token_book.end_reason(text))
    if token.installation_id is not None:
        status = world.installations[token.installation_id].status
        if status != "active":
            raise _token_refused(world, status)
    return token


def _token_refused(world: World, why: str) -> ApiError:
    # Which status this has is the best known of the unknowns: 403 was seen (T).
    return ApiError(world.settings.invalid_token_status, TOKEN_INVALID, reason=f"token-{why}")
