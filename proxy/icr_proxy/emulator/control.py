"""The control API, `/_emulator/…`: what a test does to the emulated world, over HTTP.

JSON in, JSON out; no token, no latency, no record. It is not for the network: whoever reaches it
owns the emulator.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import msgspec

from icr_proxy.emulator.api.calls import Act, ApiResponse, Call, Route, json_answer
from icr_proxy.emulator.api.organization_endpoints import approve
from icr_proxy.emulator.api.shapes import Json, Shapes, amount_number
from icr_proxy.emulator.api_errors import invalid, not_found
from icr_proxy.emulator.registry.credentials import new_private_key
from icr_proxy.emulator.registry.entities import ZERO, Installation
from icr_proxy.emulator.registry.world import LedgerEntry, World
from icr_proxy.emulator.settings import EmulatorSettings, Fault, Kind, When, iso_date
from icr_proxy.emulator.traffic import SeenRequest


class _NewKey(msgspec.Struct, forbid_unknown_fields=True):
    pem: str | None = None


def read_private_key(call: Call) -> ApiResponse:
    """Hand out the first private key."""
    return ApiResponse(
        body=call.world.keys.private_pem.encode(),
        headers=(("Content-Type", "application/x-pem-file"),),
    )


def list_keys(call: Call) -> ApiResponse:
    """List the fingerprints of active keys."""
    return json_answer({"keys": list(call.world.keys.active)})


def add_key(call: Call) -> ApiResponse:
    """Activate a key: the given one, or a new one whose private half is in the answer."""
    given = call.decode(_NewKey).pem
    pem = given or new_private_key()
    try:
        fingerprint = call.world.keys.add(pem)
    except ValueError as exc:
        raise invalid("pem must be an RSA key without a passphrase") from exc
    made = {} if given else {"pem": pem}
    return json_answer({"fingerprint": fingerprint, **made}, status=201)


def delete_key(call: Call) -> ApiResponse:
    """Deactivate a key."""
    if not call.world.keys.delete(call.params["fingerprint"]):
        raise not_found("Key")
    return json_answer({"keys": list(call.world.keys.active)})


KEY_ROUTES: Final = (
    Route("GET", "/_emulator/key", read_private_key, faults=None),
    Route("GET", "/_emulator/keys", list_keys, faults=None),
    Route("POST", "/_emulator/keys", add_key, faults=None),
    Route("DELETE", "/_emulator/keys/{fingerprint}", delete_key, faults=None),
)


_STORES: Final = ("inventory", "warehouse", "reserved", "retired", "outside")


def state_report(world: World) -> Json:
    """Report everything but requests and ledger entries, which have reports of their own."""
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
    """Report one installation."""
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
        "transfers": _movement_totals(world, "transfer"),
        "retirements": _movement_totals(world, "retire"),
        "issued": amount_number(sum(world.book.issued.values(), start=ZERO)),
        "stores": {name: amount_number(amount) for name, amount in stores.items()},
    }


def ledger_report(world: World) -> Json:
    """Report every movement, the oldest first."""
    entries = [entry_report(entry) for entry in world.ledger]
    return {"totals": ledger_totals(world), "entries": entries}


def entry_report(entry: LedgerEntry) -> Json:
    """Report one movement."""
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
    """Report one request; headers keep case, order and duplicates."""
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


def _movement_totals(world: World, kind: str) -> Json:
    amounts = [entry.amount for entry in world.ledger if entry.kind == kind]
    return {"count": len(amounts), "amount": amount_number(sum(amounts, start=ZERO))}


_MAX_COUNT: Final = 10_000

# The emulator uses these at its start; a later change would have no effect.
_FIXED: Final = frozenset({"host", "port", "app_id", "request_log_size"})


class _NewInstallations(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    count: int = 1
    installation_id: str | None = None
    organization_id: str | None = None
    name: str | None = None
    permissions: dict[str, str] | None = None
    credits: float | None = None


class _Shift(msgspec.Struct, forbid_unknown_fields=True):
    shift: float


class _Permissions(msgspec.Struct, forbid_unknown_fields=True):
    permissions: dict[str, str]


class _Faults(msgspec.Struct, forbid_unknown_fields=True):
    target: str
    kind: Kind
    count: int = 1
    status: int = 503
    body: str | None = None
    headers: dict[str, str] | None = None
    seconds: float | None = None
    when: When = "before"


def read_state(call: Call) -> ApiResponse:
    """Report settings, installations and counters."""
    return json_answer(state_report(call.world))


def read_requests(call: Call) -> ApiResponse:
    """Report the latest requests, the oldest first."""
    limit = call.number("limit", default=100)
    latest = list(call.world.requests)[-limit:] if limit else []
    return json_answer({"requests": [request_report(seen) for seen in latest]})


def read_ledger(call: Call) -> ApiResponse:
    """Report every movement of credits."""
    return json_answer(ledger_report(call.world))


def change_settings(call: Call) -> ApiResponse:
    """Change settings while the emulator runs."""
    changes = call.decode(dict[str, Any])
    known = asdict(call.world.settings)
    refused = [name for name in changes if name in _FIXED or name not in known]
    if refused:
        raise invalid(*(f"{name} cannot be changed" for name in refused))
    try:
        call.world.settings = msgspec.convert(known | changes, type=EmulatorSettings)
    except msgspec.ValidationError as exc:
        raise invalid(str(exc)) from exc
    return json_answer({"settings": asdict(call.world.settings)})


def seed(call: Call) -> ApiResponse:
    """Add installations."""
    wish = call.decode(_NewInstallations)
    if not 1 <= wish.count <= _MAX_COUNT:
        raise invalid(f"count must be between 1 and {_MAX_COUNT}")
    if wish.count > 1 and (wish.installation_id or wish.organization_id):
        raise invalid("ids can be chosen for one installation only")
    if wish.credits is not None and wish.credits < 0:
        raise invalid("credits must not be negative")
    try:
        added = [
            call.world.add_installation(
                installation_id=wish.installation_id,
                organization_id=wish.organization_id,
                name=wish.name,
                permissions=wish.permissions,
                credits_each=wish.credits,
            )
            for _ in range(wish.count)
        ]
    except ValueError as exc:
        raise invalid(str(exc)) from exc
    return json_answer({"installations": [installation_report(item) for item in added]}, status=201)


def on_installation(change: Callable[[Call, str], object]) -> Act:
    """Make an endpoint that changes the installation in the path."""

    def act(call: Call) -> ApiResponse:
        installation_id = call.params["id"]
        if installation_id not in call.world.installations:
            raise not_found("Installation")
        change(call, installation_id)
        return json_answer(installation_report(call.world.installations[installation_id]))

    return act


_INSTALLATION_CHANGES: Final[dict[str, Callable[[Call, str], object]]] = {
    "revoke": lambda call, name: call.world.revoke_all(name),
    "suspend": lambda call, name: call.world.suspend(name),
    "unsuspend": lambda call, name: call.world.unsuspend(name),
    "uninstall": lambda call, name: call.world.uninstall(name),
    "permissions": lambda call, name: call.world.set_permissions(
        name, call.decode(_Permissions).permissions
    ),
}


def shift_clock(call: Call) -> ApiResponse:
    """Shift the clock further."""
    call.world.shift_clock(call.decode(_Shift).shift)
    return json_answer({"now": call.world.now(), "shift": call.world.clock.shift})


def order_faults(call: Call) -> ApiResponse:
    """Queue faults for the next calls."""
    wish = call.decode(_Faults)
    queues = call.world.faults.queues()
    if wish.target not in queues:
        raise invalid(f"target must be one of {', '.join(queues)}")
    if not 1 <= wish.count <= _MAX_COUNT:
        raise invalid(f"count must be between 1 and {_MAX_COUNT}")
    try:
        fault = Fault(
            kind=wish.kind,
            status=wish.status,
            body=wish.body,
            headers=wish.headers or {},
            seconds=wish.seconds,
            when=wish.when,
        )
    except ValueError as exc:
        raise invalid(str(exc)) from exc
    queues[wish.target].extend([fault] * wish.count)
    return json_answer({name: len(queue) for name, queue in queues.items()}, status=201)


def clear_faults(call: Call) -> ApiResponse:
    """Clear all queued faults."""
    call.world.faults.clear()
    return ApiResponse(status=204)


def approve_request(call: Call) -> ApiResponse:
    """Approve a credit request, as an admin would in the dashboard."""
    wish = approve(call.world, call.params["requestId"])
    return json_answer(Shapes(call.world.settings).credit_request(wish))


def reset(call: Call) -> ApiResponse:
    """Return to the state of the start; settings and keys stay."""
    call.world.reset()
    return json_answer(state_report(call.world))


def _route(method: str, path: str, act: Act) -> Route:
    return Route(method, f"/_emulator/{path}", act, faults=None)


ROUTES: Final = (
    _route("GET", "state", read_state),
    _route("GET", "requests", read_requests),
    _route("GET", "ledger", read_ledger),
    _route("POST", "settings", change_settings),
    _route("POST", "installations", seed),
    *(
        _route("POST", f"installations/{{id}}/{name}", on_installation(change))
        for name, change in _INSTALLATION_CHANGES.items()
    ),
    _route("POST", "requests/{requestId}/approve", approve_request),
    _route("POST", "clock", shift_clock),
    _route("POST", "faults", order_faults),
    _route("DELETE", "faults", clear_faults),
    _route("POST", "reset", reset),
)
