"""What the registry holds when it starts: projects, organizations, credits, past retirements.

Real payloads' oddities are here on purpose: fractional amounts, identifiers of 78 digits (V).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from icr_proxy.emulator.registry.entities import (
    CreditBatch,
    CreditType,
    Organization,
    Project,
    Purpose,
    Retirement,
)
from icr_proxy.emulator.registry.identities import chain_address, chain_token_id, stable_id

PERMISSIONS: Final[dict[str, str]] = {
    "organization_info": "VIEW",
    "organization_members": "VIEW",
    "organization_projects": "VIEW",
    "organization_inventory": "WRITE",
    "organization_warehouse": "WRITE",
}

_PROJECTS: Final = (
    # number, country in two and three letters, name, public
    ("354", "IS", "ISL", "Skogarreitur Afforestation", True),
    ("361", "BR", "BRA", "Rio Verde Mangroves", True),
    ("372", "KE", "KEN", "Turkana Clean Cooking", True),
    ("388", "IN", "IND", "Deccan Solar Park", True),
    ("395", "PE", "PER", "Andes Peatland Restoration", True),
    ("401", "IS", "ISL", "Hellisheidi Mineral Storage", True),
    ("417", "NO", "NOR", "Unpublished Fjord Pilot", False),  # only `examiner` sees it (D)
)

# Gone before the emulator started, so that every organization has a retirement and a PDF.
_PAST_AMOUNT: Final = Decimal("12.345")


@dataclass(frozen=True, slots=True)
class _Seed:
    """A credit that every organization holds."""

    type: CreditType
    vintage: str
    warehouse: bool = False
    development: bool = False


_SEEDS: Final = (
    _Seed("exPost", "2021"),
    _Seed("exAnte", "2027"),
    _Seed("exPost", "2020", development=True),
    _Seed("exPost", "2022", warehouse=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endowment:
    """Credits for a new organization."""

    batch: CreditBatch
    amount: Decimal
    warehouse: bool


def projects(now: float) -> Iterator[Project]:
    """Name the projects of the registry."""
    for num, country, code, name, is_public in _PROJECTS:
        yield Project(
            id=stable_id("project", num),
            num=num,
            full_name=name,
            created_at=now,
            country_code=country,
            country_code3=code,
            is_public=is_public,
        )


def endowments(
    organization: Organization, *, project: Project, amount: Decimal
) -> Iterator[Endowment]:
    """Give an organization its first credits."""
    for number, seed in enumerate(_SEEDS, start=1):
        name = f"{organization.id}/{number}"
        address = chain_address(f"contract/{project.num}/{seed.type}")
        batch = CreditBatch(
            # The documentation's example is `exPost-2-0x…` (D).
            id=f"{seed.type}-{number}-{chain_address(name)}",
            organization_id=organization.id,
            project=project,
            type=seed.type,
            vintage=seed.vintage,
            serialization=_serialization(project, seed=seed, name=name),
            token_id=chain_token_id(name),
            token_address=address,
            development=seed.development,
        )
        yield Endowment(batch=batch, amount=amount, warehouse=seed.warehouse)


def past_retirement(organization: Organization, *, batch: CreditBatch, now: float) -> Retirement:
    """Make the retirement that every organization starts with."""
    return Retirement(
        id=stable_id("retirement", organization.id),
        organization_id=organization.id,
        batch=batch,
        amount=_PAST_AMOUNT,
        created_at=now,
        purpose=Purpose(
            reason="Voluntary emission compensation", beneficiary=organization.full_name
        ),
    )


def _serialization(project: Project, *, seed: _Seed, name: str) -> str:
    # Dash-separated, such as `ICR-ISL-354-…-2021` (D); the middle is made up.
    middle = chain_address(name)[2:12].upper()
    return f"ICR-{project.country_code3}-{project.num}-{middle}-{seed.vintage}"
