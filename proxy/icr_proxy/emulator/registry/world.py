"""The state of the emulated registry, and the few things that happen to it from outside.

Tests in the same process work on it directly, the control API through it. Containers keep their
identity over `reset`, so a reference to one stays good.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from icr_proxy.emulator.clock import Clock
from icr_proxy.emulator.faults import Faults
from icr_proxy.emulator.registry import seeding
from icr_proxy.emulator.registry.app_keys import AppKeys
from icr_proxy.emulator.registry.credentials import AccessToken, TokenBook
from icr_proxy.emulator.registry.credit_book import Account, CreditBook
from icr_proxy.emulator.registry.entities import (
    CreditBatch,
    CreditRequest,
    Installation,
    Organization,
    Project,
    Reservation,
    Retirement,
    Status,
    Subaccount,
    Transaction,
)
from icr_proxy.emulator.registry.identities import chain_address, company_name, stable_id
from icr_proxy.emulator.settings import EmulatorSettings
from icr_proxy.emulator.traffic import SeenRequest, Traffic


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

    @property
    def tokens(self) -> dict[str, AccessToken]:
        """The live access tokens by their text."""
        return self.token_book.live

    @property
    def requests(self) -> deque[SeenRequest]:
        """The requests seen, oldest first, without those of the control API."""
        return self.traffic.requests

    @property
    def mints(self) -> Counter[str]:
        """How many tokens were made, by installation id, or `app`."""
        return self.traffic.mints

    @property
    def mint_attempts(self) -> Counter[str]:
        """How many times a token was asked for, whatever the answer, by the id in the path."""
        return self.traffic.mint_attempts

    @property
    def denied(self) -> Counter[str]:
        """How many accesses were denied, by reason; `wrong-organization` must stay 0."""
        return self.traffic.denied

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
        self.projects.update((project.id, project) for project in seeding.projects(self.now()))
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
            self._found(organization_id, name=name or company_name(number), amount=amount)
        installation = Installation(
            id=installation_id,
            organization=self.organizations[organization_id],
            permissions=dict(seeding.PERMISSIONS if permissions is None else permissions),
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

    def _found(self, organization_id: str, *, name: str, amount: float | Decimal) -> None:
        organization = Organization(
            id=organization_id,
            full_name=name,
            created_at=self.now(),
            address=chain_address(organization_id),
        )
        choices = list(self.projects.values())
        project = choices[len(self.organizations) % len(choices)]
        self.organizations[organization.id] = organization
        gifts = list(seeding.endowments(organization, project=project, amount=Decimal(str(amount))))
        for gift in gifts:
            account = Account(organization.id, "warehouse" if gift.warehouse else "inventory")
            self.batches[gift.batch.id] = gift.batch
            self.book.issue(account, credit_id=gift.batch.id, amount=gift.amount)
        past = seeding.past_retirement(organization, batch=gifts[0].batch, now=self.now())
        self.retirements[past.id] = past
        gone = Account(organization.id, "retired")
        self.book.issue(gone, credit_id=past.batch.id, amount=past.amount)
