"""The state of the emulated registry, and what it holds at the start.

Real payloads' oddities are here on purpose: fractional amounts, identifiers of 78 digits (V).

Tests in the same process work on it directly, the control API through it. Containers keep their
identity over `reset`, so a reference to one stays good.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from icr_proxy.emulator.registry.credentials import AppKeys, TokenBook
from icr_proxy.emulator.registry.entities import (
    Account,
    CreditBatch,
    CreditBook,
    CreditRequest,
    CreditType,
    Installation,
    Organization,
    Project,
    Purpose,
    Reservation,
    Retirement,
    Status,
    Subaccount,
    Transaction,
    chain_address,
    chain_token_id,
    company_name,
    stable_id,
)
from icr_proxy.emulator.settings import Clock, EmulatorSettings, Faults
from icr_proxy.emulator.traffic import Traffic

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One movement of credits; a request that was sent twice leaves two."""

    id: str
    transaction_id: str
    kind: Literal["transfer", "retire"]
    credit_id: str
    source: str
    target: str
    amount: Decimal
    at: float
    installation_id: str | None = None


class World:
    """Everything the emulator knows."""

    def __init__(
        self, settings: EmulatorSettings, *, now: Callable[[], float], keys: AppKeys
    ) -> None:
        self.settings = settings
        self.clock = Clock(now)
        self.keys = keys
        self.faults = Faults()
        self.traffic = Traffic(settings.request_log_size)
        self.token_book = TokenBook()
        self.tokens = self.token_book.live
        """The live access tokens, by their text."""
        self.requests = self.traffic.requests
        """The requests, the oldest first, without those of the control API."""
        self.mints = self.traffic.mints
        """Issued tokens by installation ID, or `app`."""
        self.mint_attempts = self.traffic.mint_attempts
        """Requests for a token, whatever the response, by the ID in the path."""
        self.denied = self.traffic.denied
        """Denied accesses by reason; `wrong-organization` must stay 0."""
        self.book = CreditBook()
        self.ledger: list[LedgerEntry] = []
        self.installations: dict[str, Installation] = {}
        self.organizations: dict[str, Organization] = {}
        self.projects: dict[str, Project] = {}
        self.batches: dict[str, CreditBatch] = {}
        self.retirements: dict[str, Retirement] = {}
        self.transactions: dict[str, Transaction] = {}
        self.credit_requests: dict[str, CreditRequest] = {}
        self.reservations: dict[str, Reservation] = {}
        self.subaccounts: dict[str, Subaccount] = {}
        self.serials: Counter[str] = Counter()
        self.reset()

    def now(self) -> float:
        """Tell the emulator's time."""
        return self.clock.now()

    def new_id(self, kind: str) -> str:
        """Name the next thing of a kind; the same names again after a reset."""
        self.serials[kind] += 1
        return stable_id(kind, self.serials[kind])

    def reset(self) -> None:
        """Return to the state of the start; settings and keys stay."""
        self.clock.shift = 0.0
        for part in (
            self.faults,
            self.traffic,
            self.token_book,
            self.book,
            self.ledger,
            self.installations,
            self.organizations,
            self.projects,
            self.batches,
            self.retirements,
            self.transactions,
            self.credit_requests,
            self.reservations,
            self.subaccounts,
            self.serials,
        ):
            part.clear()
        self.projects.update((project.id, project) for project in projects(self.now()))
        for _ in range(self.settings.installations):
            self.add_installation()

    def add_installation(
        self,
        *,
        installation_id: str | None = None,
        organization_id: str | None = None,
        name: str | None = None,
        permissions: dict[str, str] | None = None,
        credits_each: float | Decimal | None = None,
    ) -> Installation:
        """Found an organization and install the app on it; `ValueError` if the id is taken.

        An `organization_id` that exists gets a further installation and no further credits.
        """
        number = len(self.installations) + 1
        installation_id = installation_id or stable_id("installation", number)
        organization_id = organization_id or stable_id("organization", number)
        if installation_id in self.installations:
            raise ValueError(f"installation {installation_id} exists")
        if organization_id not in self.organizations:
            amount = self.settings.credits if credits_each is None else credits_each
            self._create_organization(
                organization_id, name=name or company_name(number), amount=amount
            )
        installation = Installation(
            id=installation_id,
            organization=self.organizations[organization_id],
            permissions=dict(PERMISSIONS if permissions is None else permissions),
            created_at=self.now(),
            updated_at=self.now(),
        )
        self.installations[installation.id] = installation
        return installation

    def suspend(self, installation_id: str) -> None:
        """Suspend: no mint (403), not listed, live tokens invalid until `unsuspend` (A)."""
        self._set_status(installation_id, "suspended")

    def unsuspend(self, installation_id: str) -> None:
        """End a suspension."""
        self._set_status(installation_id, "active")

    def uninstall(self, installation_id: str) -> None:
        """Uninstall: the installation is not found any more and its tokens are dead (A)."""
        self._set_status(installation_id, "uninstalled")
        self.token_book.revoke_of(installation_id)

    def revoke_all(self, installation_id: str | None) -> int:
        """Kill all tokens of an installation, or with None those of the app; tell how many."""
        return self.token_book.revoke_of(installation_id)

    def set_permissions(self, installation_id: str, permissions: dict[str, str]) -> None:
        """Change what an installation may do; live tokens keep their snapshot (I)."""
        installation = self.installations[installation_id]
        installation.permissions = dict(permissions)
        installation.updated_at = self.now()

    def shift_clock(self, seconds: float) -> None:
        """Move the emulator's clock, further with each call."""
        self.clock.shift += seconds

    def _set_status(self, installation_id: str, status: Status) -> None:
        installation = self.installations[installation_id]
        installation.status = status
        installation.updated_at = self.now()

    def _create_organization(
        self, organization_id: str, *, name: str, amount: float | Decimal
    ) -> None:
        organization = Organization(
            id=organization_id,
            full_name=name,
            created_at=self.now(),
            address=chain_address(organization_id),
        )
        choices = list(self.projects.values())
        project = choices[len(self.organizations) % len(choices)]
        self.organizations[organization.id] = organization
        given = list(endowments(organization, project=project, amount=Decimal(str(amount))))
        for endowment in given:
            account = Account(organization.id, "warehouse" if endowment.warehouse else "inventory")
            self.batches[endowment.batch.id] = endowment.batch
            self.book.issue(account, credit_id=endowment.batch.id, amount=endowment.amount)
        past = past_retirement(organization, batch=given[0].batch, now=self.now())
        self.retirements[past.id] = past
        gone = Account(organization.id, "retired")
        self.book.issue(gone, credit_id=past.batch.id, amount=past.amount)
