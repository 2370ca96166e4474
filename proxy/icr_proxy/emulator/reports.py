"""What the control API tells about the world, as JSON."""

from collections import Counter
from dataclasses import asdict
from typing import Final

from icr_proxy.emulator.api.shapes import Json, amount_number
from icr_proxy.emulator.clock import iso_date
from icr_proxy.emulator.registry.credit_book import ZERO
from icr_proxy.emulator.registry.entities import Installation
from icr_proxy.emulator.registry.world import LedgerEntry, World
from icr_proxy.emulator.traffic import SeenRequest

_STORES: Final = ("inventory", "warehouse", "reserved", "retired", "outside")


def state_report(world: World) -> Json:
    """Tell everything but requests and ledger entries, which have reports of their own."""
    live = Counter(token.installation_id for token in world.tokens.values())
    installations = []
    for installation in world.installations.values():
        report = installation_report(installation)
        report["mints"] = world.mints[installation.id]
        report["liveTokens"] = live[installation.id]
        installations.append(report)
    now = world.now()
    return {
        "appId": world.settings.app_id,
        "settings": asdict(world.settings),
        "clock": {
            "now": now,
            "date": iso_date(now, milliseconds=True),
            "shift": world.clock.shift,
        },
        "keys": list(world.keys.active),
        "installations": installations,
        "mints": dict(world.mints),
        "mintAttempts": dict(world.mint_attempts),
        "liveTokens": len(world.tokens),
        "requests": world.traffic.total,
        "statuses": {str(status): count for status, count in world.traffic.statuses.items()},
        "denied": dict(world.denied),
        "faults": {name: len(queue) for name, queue in world.faults.queues().items()},
        "ledger": ledger_totals(world),
    }


def installation_report(installation: Installation) -> Json:
    """Tell about one installation."""
    return {
        "id": installation.id,
        "organizationId": installation.organization.id,
        "organizationName": installation.organization.full_name,
        "status": installation.status,
        "permissions": installation.permissions,
    }


def ledger_totals(world: World) -> Json:
    """Sum up what moved, and where all credits are; `issued` is their sum."""
    stores = {store: sum(world.book.stored(store).values(), start=ZERO) for store in _STORES}
    return {
        "entries": len(world.ledger),
        "transfers": _moved(world, "transfer"),
        "retirements": _moved(world, "retire"),
        "issued": amount_number(sum(world.book.issued.values(), start=ZERO)),
        "stores": {name: amount_number(amount) for name, amount in stores.items()},
    }


def ledger_report(world: World) -> Json:
    """Tell every movement, oldest first."""
    entries = [entry_report(entry) for entry in world.ledger]
    return {"totals": ledger_totals(world), "entries": entries}


def entry_report(entry: LedgerEntry) -> Json:
    """Tell one movement."""
    return {
        "id": entry.id,
        "transactionId": entry.transaction_id,
        "kind": entry.kind,
        "creditId": entry.credit_id,
        "from": entry.source,
        "to": entry.target,
        "amount": amount_number(entry.amount),
        "at": entry.at,
        "installationId": entry.installation_id,
    }


def request_report(seen: SeenRequest) -> Json:
    """Tell one request, headers with case, order and duplicates."""
    return {
        "method": seen.method,
        "target": seen.target,
        "headers": [
            [name.decode("latin-1"), value.decode("latin-1")] for name, value in seen.headers
        ],
        "at": seen.at,
        "peerPort": seen.peer_port,
        "bodyLength": seen.body_length,
        "bodySha256": seen.body_sha256,
        "bodyComplete": seen.body_complete,
        "status": seen.status,
        "installationId": seen.installation_id,
        "fault": seen.fault,
    }


def _moved(world: World, kind: str) -> Json:
    amounts = [entry.amount for entry in world.ledger if entry.kind == kind]
    return {"count": len(amounts), "amount": amount_number(sum(amounts, start=ZERO))}
