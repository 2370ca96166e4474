"""Entities of the registry as values, their credits by double entry, and their stable IDs.

Credits come into being by `issue` alone. After that everything, retirement included, is a move
from one account to another. Amounts are `Decimal`: fractional amounts occur (V) and must add up.

Everything is derived from a counter by UUIDv5 or SHA-256; nothing here is random. Access tokens
are, and they live in `tokens`.
"""

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Final, Literal, NamedTuple
from uuid import UUID, uuid5

Status = Literal["active", "suspended", "uninstalled"]
CreditType = Literal["exPost", "exAnte"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """A member of the registry; `address` is its default account on the chain."""

    id: str
    full_name: str
    created_at: float
    address: str
    type: str = "marketParticipant"
    country_code: str = "IS"


@dataclass(slots=True, kw_only=True)
class Installation:
    """Our app on one organization; mutable, since admins suspend it and change permissions."""

    id: str
    organization: Organization
    permissions: dict[str, str]
    created_at: float
    updated_at: float
    status: Status = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A climate project; only public ones are listed to everybody (D)."""

    id: str
    num: str
    full_name: str
    created_at: float
    country_code: str  # two letters on the wire
    country_code3: str  # three inside of serializations
    is_public: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditBatch:
    """Credits that cannot be told apart: one serialization, one chain token."""

    id: str
    organization_id: str
    project: Project
    type: CreditType
    vintage: str
    serialization: str
    token_id: str
    token_address: str
    development: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What a retirement is for."""

    reason: str
    beneficiary: str
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """Credits that are gone for good."""

    id: str
    organization_id: str
    batch: CreditBatch
    amount: Decimal
    created_at: float
    purpose: Purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What one order did; `entries` are the ids of its ledger entries."""

    id: str
    kind: Literal["transfer", "retire", "transfer_retire"]
    organization_id: str
    target: str
    created_at: float
    entries: tuple[str, ...]
    comment: str | None = None


@dataclass(slots=True, kw_only=True)
class CreditRequest:
    """A wish for a transaction, which an admin of the organization approves or does not."""

    id: str
    action: str
    batch: CreditBatch
    amount: Decimal
    organization_id: str
    created_at: float
    to_organization_id: str | None = None
    to_address: str | None = None
    purpose: Purpose | None = None
    state: str = "pending"
    transaction_id: str | None = None
    retirement_id: str | None = None


@dataclass(slots=True, kw_only=True)
class Reservation:
    """Warehouse credits held for the app until `expires_at` (ten minutes, D)."""

    id: str
    organization_id: str
    batch: CreditBatch
    amount: Decimal
    created_at: float
    expires_at: float
    is_complete: bool = False


@dataclass(slots=True, kw_only=True)
class Subaccount:
    """An account of an entity besides its default one."""

    id: str
    name: str
    address: str
    owner_id: str
    created_at: float


# `outside` holds what left for an e-mail in escrow or a chain address that nobody here owns.
Store = Literal["inventory", "warehouse", "reserved", "retired", "outside"]
ZERO: Final = Decimal(0)


class Account(NamedTuple):
    """One pile of credits of one owner."""

    owner: str
    store: Store


class InsufficientCreditsError(Exception):
    """The source holds less than was to be moved; nothing was moved."""

    def __init__(self, *, credit_id: str, wanted: Decimal, held: Decimal) -> None:
        super().__init__(f"{wanted} of {credit_id} wanted, {held} held")
        self.credit_id = credit_id
        self.wanted = wanted
        self.held = held


class CreditBook:
    """The balances of all accounts."""

    def __init__(self) -> None:
        self.issued: dict[str, Decimal] = defaultdict(Decimal)
        self._balances: dict[Account, dict[str, Decimal]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.issued.clear()
        self._balances.clear()

    def issue(self, account: Account, *, credit_id: str, amount: Decimal) -> None:
        """Bring credits into being."""
        self.issued[credit_id] += amount
        self._add(account, credit_id=credit_id, amount=amount)

    def balance(self, account: Account, *, credit_id: str) -> Decimal:
        """Tell what an account holds of one credit."""
        return self._balances.get(account, {}).get(credit_id, ZERO)

    def holdings(self, account: Account) -> dict[str, Decimal]:
        """List what an account holds, in the order in which it came."""
        return {key: held for key, held in self._balances.get(account, {}).items() if held}

    def move(self, source: Account, *, target: Account, credit_id: str, amount: Decimal) -> None:
        """Move credits, or raise `InsufficientCreditsError` and move nothing."""
        held = self.balance(source, credit_id=credit_id)
        if amount > held:
            raise InsufficientCreditsError(credit_id=credit_id, wanted=amount, held=held)
        self._balances[source][credit_id] = held - amount
        self._add(target, credit_id=credit_id, amount=amount)

    def totals(self) -> dict[str, Decimal]:
        """Sum each credit over all accounts; always equal to what was issued."""
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for held in self._balances.values():
            for credit_id, amount in held.items():
                sums[credit_id] += amount
        return dict(sums)

    def stored(self, store: Store) -> dict[str, Decimal]:
        """Sum each credit over one kind of account."""
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for account, held in self._balances.items():
            if account.store == store:
                for credit_id, amount in held.items():
                    sums[credit_id] += amount
        return dict(sums)

    def _add(self, account: Account, *, credit_id: str, amount: Decimal) -> None:
        pile = self._balances.setdefault(account, {})
        pile[credit_id] = pile.get(credit_id, ZERO) + amount


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
