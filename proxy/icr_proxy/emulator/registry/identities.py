"""Names of things that are the same on every start, so that a document can print them.

Everything is derived from a counter by UUIDv5 or SHA-256; nothing here is random. Access tokens
are, and they live in `tokens`.
"""

from hashlib import sha256
from typing import Final
from uuid import UUID, uuid5

NAMESPACE: Final = UUID("1c0a5e3e-5b0b-4f0e-9a39-0d6d3c1b7a52")

# The documentation shows short digits as the App ID, real ones are UUIDs (D, V).
APP_ID: Final = "5b1f7c1e-0a7e-4e0c-9d2a-1c2c0a6f0e01"
APP_NAME_ID: Final = "icr-proxy-emulator"

_COMPANIES: Final = (
    "Askja Reforestation",
    "Borealis Basalt",
    "Fjord Carbon Trading",
    "Geysir Geothermal",
    "Hekla Offsets",
    "Jokull Restoration",
    "Lagarfoss Hydro",
    "Myrar Peatlands",
    "Nordurljos Air Capture",
    "Skogur Forestry",
)


def stable_id(kind: str, number: int | str) -> str:
    """Derive the UUID of the `number`-th thing of a kind."""
    return str(uuid5(NAMESPACE, f"{kind}-{number}"))


def company_name(number: int) -> str:
    """Give organization `number` (from 1) a name that a person can tell from the next."""
    name = _COMPANIES[(number - 1) % len(_COMPANIES)]
    lap = (number - 1) // len(_COMPANIES)
    return name if lap == 0 else f"{name} {lap + 1}"


def chain_address(name: str) -> str:
    """Derive an EVM-looking address."""
    return "0x" + sha256(name.encode()).hexdigest()[:40]


def chain_token_id(name: str) -> str:
    """Derive an on-chain identifier: 78 digits, as strings on the wire, beyond any double (V)."""
    tail = int.from_bytes(sha256(name.encode()).digest()) % 10**77
    return f"1{tail:077d}"
