"""The things of the registry, as values; how they look on the wire is said in `shapes`."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

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
