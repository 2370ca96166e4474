"""Entities as the API writes them, with the oddities of real payloads (V).

Field names are the documentation's (D). Amounts are JSON numbers, identifiers of the chain are
strings of 78 digits, some members are null, and some addresses start with `undefined/`.
"""

from decimal import Decimal
from typing import Final

from icr_proxy.emulator.registry.credentials import IssuedToken
from icr_proxy.emulator.registry.entities import (
    APP_NAME_ID,
    CreditBatch,
    CreditRequest,
    Installation,
    Organization,
    Project,
    Reservation,
    Retirement,
    Subaccount,
    Transaction,
)
from icr_proxy.emulator.settings import EmulatorSettings, iso_date

Json = dict[str, object]

_SITE: Final = "https://www.carbonregistry.com"


def amount_number(amount: Decimal) -> Decimal | int:
    """Write an amount without trailing zeros and without an exponent."""
    return int(amount) if amount == amount.to_integral_value() else amount.normalize()


class Shapes:
    """The wire forms, under one emulator's settings."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings

    def date(self, timestamp: float) -> str:
        """Write a date with or without milliseconds, as set."""
        return iso_date(timestamp, milliseconds=self._settings.milliseconds)

    def token(self, token: IssuedToken) -> Json:
        """`AppAccessToken`, or `InstallationAccessToken`, which has two more members (D)."""
        made = self.date(token.created_at)
        shape: Json = {
            "id": token.id,
            "createdAt": made,
            "updatedAt": made,
            "token": token.token,
            "expiresAt": self.date(token.expires_at),
            "isActive": True,
            "permissions": token.permissions,
            "appId": self._settings.app_id,
        }
        if token.installation_id is not None:
            shape["installationId"] = token.installation_id
            shape["organizationId"] = token.organization_id
        return shape

    def organization(self, organization: Organization) -> Json:
        """`Organization` (D); `organizationIndustries` was null in a real payload (V)."""
        return {
            "id": organization.id,
            "createdAt": self.date(organization.created_at),
            "updatedAt": self.date(organization.created_at),
            "fullName": organization.full_name,
            "countryCode": organization.country_code,
            "logo": f"https://files.carbonregistry.com/logos/{organization.id}.png",
            "type": organization.type,
            "isPublic": True,
            "url": f"undefined/organizations/{organization.id}",
            "website": None,
            "organizationIndustries": None,
        }

    def installation(self, installation: Installation) -> Json:
        """`Installation`, composed from payloads and client code (D, V)."""
        return {
            "id": installation.id,
            "createdAt": self.date(installation.created_at),
            "updatedAt": self.date(installation.updated_at),
            "appId": self._settings.app_id,
            "appNameId": APP_NAME_ID,
            "permissions": installation.permissions,
            "organization": self.organization(installation.organization),
            # A real payload began with the literal text `undefined/` (V).
            "accessTokensUrl": f"undefined/app/installations/{installation.id}/accessTokens",
        }

    def project(self, project: Project) -> Json:
        """`Project` as it appears inside of credits, with a few more members (D)."""
        return {
            "id": project.id,
            "createdAt": self.date(project.created_at),
            "updatedAt": self.date(project.created_at),
            "num": project.num,
            "fullName": project.full_name,
            "countryCode": project.country_code,
            "isPublic": project.is_public,
            "url": f"undefined/projects/{project.id}",
            "publicUrl": f"{_SITE}/projects/{project.num}",
        }

    def credit(self, batch: CreditBatch, *, owner: str, amount: Decimal, supply: Decimal) -> Json:
        """`Credit` (D)."""
        return {
            "organizationId": owner,
            "id": batch.id,
            "tokenId": batch.token_id,
            "tokenAddress": batch.token_address,
            "project": self.project(batch.project),
            "serialization": batch.serialization,
            "vintage": batch.vintage,
            "supply": amount_number(supply),
            "unit": "tonne",
            "amount": amount_number(amount),
            "type": batch.type,
        }

    def warehouse_credit(self, batch: CreditBatch, *, owner: str, amount: Decimal) -> Json:
        """`WarehouseCredit` (D)."""
        return {
            "id": batch.id,
            "inventoryId": f"warehouse-{owner}",
            "organizationId": owner,
            "project": self.project(batch.project),
            "serialization": batch.serialization,
            "amount": amount_number(amount),
            "type": batch.type,
        }

    def retirement(self, retirement: Retirement, *, owner: Organization | None) -> Json:
        """`Retirement` (D, V)."""
        return {
            "id": retirement.id,
            "createdAt": self.date(retirement.created_at),
            "isClaimed": False,
            "reason": retirement.purpose.reason,
            "comment": retirement.purpose.comment,
            "beneficiary": retirement.purpose.beneficiary,
            "organizationId": retirement.organization_id,
            "organizationOwner": None if owner is None else self.organization(owner),
            "serialization": retirement.batch.serialization,
            "vintage": retirement.batch.vintage,
            "amount": amount_number(retirement.amount),
            "project": self.project(retirement.batch.project),
        }

    def credit_request(self, wish: CreditRequest) -> Json:
        """`CreditRequest` (D, V)."""
        return {
            "action": wish.action,
            "type": wish.batch.type,
            "id": wish.id,
            "toAddress": wish.to_address,
            "createdAt": self.date(wish.created_at),
            "updatedAt": self.date(wish.created_at),
            "tokenId": wish.batch.token_id,
            "tokenAddress": wish.batch.token_address,
            "creditId": wish.batch.id,
            "serialization": wish.batch.serialization,
            "vintage": wish.batch.vintage,
            "amount": amount_number(wish.amount),
            "fromOrganizationId": wish.organization_id,
            "toOrganizationId": wish.to_organization_id,
            "project": self.project(wish.batch.project),
            "txId": wish.transaction_id,
            "state": wish.state,
            "retirementReason": wish.purpose and wish.purpose.reason,
            "retirementComment": wish.purpose and wish.purpose.comment,
            "beneficiaryName": wish.purpose and wish.purpose.beneficiary,
            "retirementId": wish.retirement_id,
        }

    def reservation(self, hold: Reservation) -> Json:
        """`Reservation` (V); the reserver is the app (D)."""
        return {
            "id": hold.id,
            "amount": amount_number(hold.amount),
            "createdAt": self.date(hold.created_at),
            "updatedAt": self.date(hold.created_at),
            "tokenId": hold.batch.token_id,
            "tokenAddress": hold.batch.token_address,
            "type": hold.batch.type,
            "reservedToDate": self.date(hold.expires_at),
            "serialization": hold.batch.serialization,
            "isComplete": hold.is_complete,
            "project": {"id": hold.batch.project.id, "fullName": hold.batch.project.full_name},
            "reserver": {"id": self._settings.app_id, "name": APP_NAME_ID},
            "creditId": hold.batch.id,
        }

    def transaction(self, transaction: Transaction) -> Json:
        """A transaction of `/v1`; only `id` and `state` are known by name (D), the rest is ours."""
        return {
            "id": transaction.id,
            "createdAt": self.date(transaction.created_at),
            "type": transaction.kind,
            "state": "processed",
            "fromId": transaction.organization_id,
            "to": transaction.target,
            "comment": transaction.comment,
        }

    def subaccount(self, account: Subaccount) -> Json:
        """An account of `/v1` (D)."""
        return {
            "id": account.id,
            "type": "subaccount",
            "name": account.name,
            "address": account.address,
            "ownerId": account.owner_id,
        }
