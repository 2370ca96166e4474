"""How the emulator behaves where the ICR API's behaviour is uncertain.

Every default is the choice that the evidence favours; the alternatives are what else was seen or
must be expected. Nothing else in the emulator is configurable.
"""

from dataclasses import dataclass
from typing import Final

from icr_proxy.emulator.registry.identities import APP_ID

# What each uncertain status may be. A value outside is a typing mistake, not an experiment.
ALLOWED_STATUSES: Final[dict[str, tuple[int, ...]]] = {
    "invalid_token_status": (403, 401),  # 403 was observed once (T), 401 is HTTP's word for it
    "mint_status": (200, 201),  # the documentation says 200, the framework's default is 201 (A)
    "unknown_installation_status": (404, 403),  # not documented (A)
    "bad_jwt_status": (401, 403),  # not documented (A)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorSettings:
    """What one emulator is like; `ValueError` if it could not be like that."""

    host: str = "127.0.0.1"
    port: int = 0
    app_id: str = APP_ID
    installations: int = 3
    # Held of each seeded credit, in tonnes: thousands of retirements of 1 do not exhaust it.
    credits: int | float = 1_000_000
    token_lifetime: float = 7200.0  # two hours for installations (D)
    invalid_token_status: int = 403
    mint_status: int = 200
    unknown_installation_status: int = 404
    bad_jwt_status: int = 401
    milliseconds: bool = True  # dates with and without milliseconds both appear (A)
    latency: float = 0.0
    jwt_leeway: float = 5.0
    # The page lists `alg` among the required payload claims (D); whether it is enforced: unknown.
    require_alg_claim: bool = False
    request_log_size: int = 20_000

    def __post_init__(self) -> None:
        for name, allowed in ALLOWED_STATUSES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} is {value}, must be one of {list(allowed)}")
        for name in ("installations", "credits", "latency", "jwt_leeway", "request_log_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must not be negative")
        if self.token_lifetime <= 0:
            raise ValueError(f"token_lifetime is {self.token_lifetime}, must be positive")


DEFAULTS: Final = EmulatorSettings()
