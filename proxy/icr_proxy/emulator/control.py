"""The control API, `/_emulator/…`: what a test in the same process does to the world, over HTTP.

JSON in, JSON out; no token, no latency, no record. It is not for the network: whoever reaches it
owns the emulator.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import msgspec

from icr_proxy.emulator.api.calls import Act, Answer, Call, Route, json_answer
from icr_proxy.emulator.api.inventory_endpoints import approve
from icr_proxy.emulator.api.shapes import Shapes
from icr_proxy.emulator.api_errors import invalid, not_found
from icr_proxy.emulator.faults import Fault, Kind, When
from icr_proxy.emulator.registry.world import World
from icr_proxy.emulator.reports import (
    installation_report,
    ledger_report,
    request_report,
    state_report,
)
from icr_proxy.emulator.settings import EmulatorSettings

_MAX_COUNT: Final = 10_000

# Address and identity were used when it started; a change would be a lie.
_FIXED: Final = frozenset({"host", "port", "app_id", "request_log_size"})


class _Seed(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
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


def read_state(call: Call) -> Answer:
    """Tell settings, installations and counters."""
    return json_answer(state_report(call.world))


def read_requests(call: Call) -> Answer:
    """Tell the latest requests, oldest first."""
    limit = call.number("limit", default=100)
    latest = list(call.world.requests)[-limit:] if limit else []
    return json_answer({"requests": [request_report(seen) for seen in latest]})


def read_ledger(call: Call) -> Answer:
    """Tell every movement of credits."""
    return json_answer(ledger_report(call.world))


def change_settings(call: Call) -> Answer:
    """Throw switches while it runs."""
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


def seed(call: Call) -> Answer:
    """Add installations."""
    wish = call.decode(_Seed)
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


def on_installation(change: Callable[[World, Call, str], None]) -> Act:
    """Make an endpoint that does something to the installation in the path."""

    def act(call: Call) -> Answer:
        installation_id = call.params["id"]
        if installation_id not in call.world.installations:
            raise not_found("Installation")
        change(call.world, call, installation_id)
        return json_answer(installation_report(call.world.installations[installation_id]))

    return act


def _revoke(world: World, _call: Call, installation_id: str) -> None:
    world.revoke_all(installation_id)


def _suspend(world: World, _call: Call, installation_id: str) -> None:
    world.suspend(installation_id)


def _unsuspend(world: World, _call: Call, installation_id: str) -> None:
    world.unsuspend(installation_id)


def _uninstall(world: World, _call: Call, installation_id: str) -> None:
    world.uninstall(installation_id)


def _permit(world: World, call: Call, installation_id: str) -> None:
    world.set_permissions(installation_id, call.decode(_Permissions).permissions)


def shift_clock(call: Call) -> Answer:
    """Shift the clock further."""
    call.world.shift_clock(call.decode(_Shift).shift)
    return json_answer({"now": call.world.now(), "shift": call.world.clock.shift})


def order_faults(call: Call) -> Answer:
    """Let the next calls fail."""
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


def clear_faults(call: Call) -> Answer:
    """Let all go well again."""
    call.world.faults.clear()
    return Answer(status=204)


def approve_request(call: Call) -> Answer:
    """Approve a credit request, as an admin would in the dashboard."""
    wish = approve(call.world, call.params["requestId"])
    return json_answer(Shapes(call.world.settings).credit_request(wish))


def reset(call: Call) -> Answer:
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
    _route("POST", "installations/{id}/revoke", on_installation(_revoke)),
    _route("POST", "installations/{id}/suspend", on_installation(_suspend)),
    _route("POST", "installations/{id}/unsuspend", on_installation(_unsuspend)),
    _route("POST", "installations/{id}/uninstall", on_installation(_uninstall)),
    _route("POST", "installations/{id}/permissions", on_installation(_permit)),
    _route("POST", "requests/{requestId}/approve", approve_request),
    _route("POST", "clock", shift_clock),
    _route("POST", "faults", order_faults),
    _route("DELETE", "faults", clear_faults),
    _route("POST", "reset", reset),
)
