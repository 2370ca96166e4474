"""Is this App JWT acceptable? Strict where the documentation speaks, and never lenient beyond it.

RS256 only, `iss` is the App ID, `exp` at most ten minutes ahead of the server's clock (D). There
is no `kid`, so every active key is tried (I).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.types import Options

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
