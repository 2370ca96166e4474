"""What one listener decides by, and what is decided on who asks: is he known, and may he?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp.http import HttpVersion11

from proxy.browsers import is_preflight, preflight
from proxy.callerconnection import peer_of
from proxy.errors import PolicyDeniedError
from proxy.headers import refuse_expectations, refuse_upgrade, single
from proxy.hops import ALLOWED, count_down
from proxy.policy import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.access import TokenKey
    from proxy.browsers import HostGuard, OriginGuard
    from proxy.callers import Callers, Known
    from proxy.guarding import Terms
    from proxy.headers import RequestHeaders
    from proxy.hops import Hops
    from proxy.links import Links
    from proxy.operations import Operation
    from proxy.outcome import Journal
    from proxy.policy import Policy
    from proxy.request import Request
    from proxy.routes import Router, Target
    from proxy.servingconfig import LimitsConfig

Header = tuple[bytes, bytes]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides, in one value: a reload replaces it as a whole."""

    router: Router
    hosts: HostGuard
    origins: OriginGuard
    callers: Callers | None
    policy: Policy
    headers: RequestHeaders
    limits: LimitsConfig
    total_seconds: float | None
    guard: Terms | None
    links: Links | None
    trace_share: float = 0.0
    """How many of the traces that begin here are sampled: 0 to 1."""


def recognise(
    callers: Callers, request: Request, *, operation: Operation, journal: Journal
) -> Known:
    """Say who asks, where the listener wants to know, and pass what is his to ask.

    Raises:
        CallerUnauthenticatedError: nobody that is known.
        PolicyDeniedError: somebody who may not ask this, or not here.
    """
    caller = callers.recognise(request.raw_headers, peer_of(request).names)
    journal.caller = caller.name
    caller.admit(operation, listener=journal.listener)
    return caller


def admit(key: TokenKey | None, caller: Known | None, *, rules: Rules, journal: Journal) -> None:
    """Pass whom the listener and the caller's own limits let have that token.

    `None` stands for the app's own signature.

    Raises:
        PolicyDeniedError: they do not.
    """
    if key is not None:
        rules.router.admit(key)
        journal.installation = key.installation
    if caller is not None:
        caller.admit_for(journal.installation)


def ask_policy(policy: Policy, method: str, *, target: Target, journal: Journal) -> None:
    """Pass what a rule allows, or only would refuse.

    Raises:
        PolicyDeniedError: a rule refuses it.
    """
    decision = policy.unconditional or policy.decide(
        Subject(
            operation=target.operation,
            method=method,
            path=target.path,
            installation=journal.installation,
            listener=journal.listener,
            caller=journal.caller,
        )
    )
    journal.rule = decision.rule
    if decision.refuses:
        raise PolicyDeniedError(f"this proxy's policy forbids it (rule {decision.rule})")
    journal.would_refuse = None if decision.allowed else decision.rule


def check_form(request: Request, hosts: HostGuard) -> None:
    """Pass a request that asks for nothing but HTTP, and asks us.

    Raises:
        RefusedError: it does not; its class says why.
    """
    received = request.raw_headers
    refuse_upgrade(received)
    refuse_expectations(received)
    hosts.check(
        received,
        required=request.version == HttpVersion11,
        is_overruled=not request.raw_path.startswith(("/", "*")),  # RFC 9112, 3.2.2
    )


def look_at_form(
    request: Request, rules: Rules, *, hops: Hops
) -> tuple[bytes | None, Sequence[Header]]:
    """Pass a request whose headers are in order; give the page that asks, and what it is told.

    Of headers that passed once it is not asked again; a target that names a host is another matter.

    Raises:
        RefusedError: they are not; its class says why.
    """
    received, notes = request.raw_headers, request.notes
    is_usual = request.raw_path.startswith("/")
    # A reload makes all rules anew, so one of them stands for all.
    known: tuple[bytes | None, Sequence[Header]] | None
    known = notes.get(rules.origins) if is_usual else None
    if known is None:
        check_form(request, rules.hosts)
        hops.check(received)
        origin = rules.origins.check(received)
        known = origin, tuple(rules.origins.headers(origin))
        if is_usual:
            notes[rules.origins] = known
    return known


def own_answer(
    method: str, received: Sequence[Header], *, asks_first: bool
) -> Sequence[Header] | None:
    """Give the headers of an answer that needs no API, if there is one.

    `asks_first` is whether a browser's page asks that may.
    """
    if asks_first and is_preflight(method, received):
        return preflight(received)
    return [ALLOWED] if count_down(method, received) is None else None


def rewrite_links(
    links: Links, request: Request, *, target: Target
) -> Callable[[Sequence[Header]], list[Header]] | None:
    """Say how links in the answer are turned to the address the caller used, if it is known."""
    return links.towards(
        request.raw_path,
        single(request.raw_headers, b"host"),
        is_tls=request.secure,
        installation=target.prefix.installation if target.prefix is not None else None,
    )
