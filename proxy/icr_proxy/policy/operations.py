"""The operations of the API: method, path template, name.

The one place that knows the API's endpoints. Names are stable: they are metric labels, policy
rules and audit records, so a row may be added but a name is not changed. An endpoint that is not
here passes as `unknown`. Nothing here forbids anything.

Rows rest on the public documentation unless a comment says otherwise: D-old, an older generation
of it; V, the vendor's own example code; T, code of third parties; A, assumed. Three endpoints are
documented without a path (the direct inventory transaction, friendbot, members): they have no row.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

from icr_proxy.identifiers import canonical_id


class Operation(msgspec.Struct, frozen=True):
    """What a request asks of the API; `changes_state` errs towards True."""

    name: str
    changes_state: bool


# RFC 9110, 9.2.1, less TRACE, which is never forwarded. A method is safe by what HTTP says of it,
# not by what a row hopes: no documented GET changes anything, and any POST may.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

UNKNOWN_READ: Final = Operation(name="unknown", changes_state=False)
UNKNOWN_CHANGE: Final = Operation(name="unknown", changes_state=True)

# What cannot be undone: of several readings of one path, these are the strictest.
IRREVERSIBLE: Final = frozenset(
    {"v1.transfer", "v1.retire", "organizations.inventory.requests.create"}
)

_Row = tuple[str, str, str]

# Samples use these paths bare; the documentation files them under `v0.5`. That `/v0.5/…` is the
# same operation is A.
_ORG: Final = "/organizations/{organization}"
_HELD: Final = f"{_ORG}/warehouse/inventory/reservations"
_UNVERSIONED: Final[tuple[_Row, ...]] = (
    ("POST", "/app/accessTokens", "apps.tokens.create"),
    ("GET", "/app/installations", "apps.installations.list"),
    ("GET", "/app/installations/{id}", "apps.installations.get"),
    ("POST", "/app/installations/{id}/accessTokens", "apps.installations.tokens.create"),
    ("DELETE", "/app/installations/token", "apps.installations.tokens.revoke"),
    ("POST", "/app/create/user/organization", "apps.organizations.create"),  # D-old, V
    ("GET", "/whoami", "whoami.get"),  # D-old
    ("GET", _ORG, "organizations.get"),
    ("GET", f"{_ORG}/addresses", "organizations.addresses.list"),
    ("GET", f"{_ORG}/inventory", "organizations.inventory.list"),
    ("GET", f"{_ORG}/inventory/requests", "organizations.inventory.requests.list"),
    # action: transfer, retire, transfer_retire; V
    ("POST", f"{_ORG}/inventory/requests/{{action}}", "organizations.inventory.requests.create"),
    ("GET", f"{_ORG}/retirements", "organizations.retirements.list"),  # V
    ("GET", f"{_ORG}/retirements/{{id}}/pdf", "organizations.retirements.pdf"),  # V
    ("GET", f"{_ORG}/warehouse/inventory", "organizations.warehouse.inventory.list"),
    ("GET", _HELD, "organizations.warehouse.reservations.list"),
    ("POST", _HELD, "organizations.warehouse.reservations.create"),
    # the values of action are not documented; V
    ("POST", f"{_HELD}/{{id}}/{{action}}", "organizations.warehouse.reservations.finish"),
    ("DELETE", f"{_HELD}/{{id}}", "organizations.warehouse.reservations.cancel"),  # V
    ("GET", "/projects", "projects.list"),
    ("GET", "/projects/{id}", "projects.get"),
    ("GET", "/projects/find/project", "projects.find"),  # D-old
    ("GET", "/projects/internal", "projects.internal.list"),
    ("GET", "/projects/internal/{id}", "projects.internal.get"),
    ("GET", "/carbonCredits/projects/{id}", "credits.projects.get"),
    # kind: buffer, adjustment, organization
    ("GET", "/carbonCredits/icr/inventory/{kind}", "credits.inventory.get"),
    ("GET", "/retirements/list", "retirements.list"),
    ("GET", "/retirements", "retirements.get"),  # which one, the query says
    ("GET", "/retirements/{id}/pdf", "retirements.pdf"),
)

# An entity is a user or an organization.
_VERSIONED: Final[tuple[_Row, ...]] = (
    ("GET", "/v1/projects", "v1.projects.list"),
    ("GET", "/v1/projects/{id}", "v1.projects.get"),  # T
    ("POST", "/v1/transfer", "v1.transfer"),
    ("POST", "/v1/retire", "v1.retire"),
    ("GET", "/v1/transactions", "v1.transactions.list"),
    ("GET", "/v1/transactions/{id}", "v1.transactions.get"),
    ("GET", "/v1/retirements", "v1.retirements.list"),
    ("GET", "/v1/retirements/{id}", "v1.retirements.get"),
    ("GET", "/v1/utils/internal/projects", "v1.utils.projects.find"),
    ("GET", "/v1/{entity}/inventory", "v1.entities.inventory.list"),
    ("GET", "/v1/{entity}/transactions", "v1.entities.transactions.list"),
    ("GET", "/v1/{entity}/accounts", "v1.entities.accounts.list"),
    ("POST", "/v1/{entity}/accounts", "v1.entities.accounts.create"),
    ("DELETE", "/v1/{entity}/accounts/{id}", "v1.entities.accounts.delete"),
    ("GET", "/v1/openapi", "openapi.get"),
    ("GET", "/v0.5/openapi", "openapi.get"),
    ("GET", "/v0/openapi", "openapi.get"),
    ("GET", "/v0/public/projects/list", "v0.projects.list"),  # T
    ("GET", "/v0/public/projects", "v0.projects.find"),  # T
    ("GET", "/v0/public/projects/filters", "v0.projects.filters"),  # T
)

ROWS: Final[tuple[_Row, ...]] = (
    *_UNVERSIONED,
    *((method, f"/v0.5{template}", name) for method, template, name in _UNVERSIONED),
    *_VERSIONED,
)

SEGMENTS_MOST: Final = max(template.count("/") for _, template, _ in ROWS)

NAMES: Final = frozenset(name for _, _, name in ROWS) | {UNKNOWN_READ.name}


class _Node(msgspec.Struct):
    """The segments that may follow; a walk needs no way back (see `_node`)."""

    operation: Operation | None = None
    literals: dict[str, _Node] = msgspec.field(default_factory=dict)
    other: _Node | None = None


_Tail = tuple[list[str], Operation]


def _is_placeholder(segment: str) -> bool:
    return segment.startswith("{")


def _node(tails: list[_Tail]) -> _Node:
    """Build a node from what may follow it, in the order in which rows win.

    The rows of a placeholder are also put below each literal beside it, so that `/projects/find`
    is found to be `/projects/{id}` without going back.
    """
    below = [(segments[0], (segments[1:], operation)) for segments, operation in tails if segments]
    literals = {head for head, _ in below if not _is_placeholder(head)}
    other = [tail for head, tail in below if _is_placeholder(head)]
    return _Node(
        operation=next((operation for segments, operation in tails if not segments), None),
        literals={
            literal: _node([t for head, t in below if head == literal or _is_placeholder(head)])
            for literal in literals
        },
        other=_node(other) if other else None,
    )


def _trees(spelled: Callable[[str], str]) -> dict[str, _Node]:
    trees: dict[str, list[_Tail]] = {}
    for method, template, name in ROWS:
        segments = spelled(template)[1:].split("/")
        operation = Operation(name=name, changes_state=method not in SAFE_METHODS)
        trees.setdefault(method, []).append((segments, operation))
    for tails in trees.values():
        # A literal wins over a placeholder, the leftmost first.
        tails.sort(key=lambda tail: [_is_placeholder(segment) for segment in tail[0]])
    trees["HEAD"] = trees["GET"]
    return {method: _node(tails) for method, tails in trees.items()}


_TREES: Final = _trees(str.casefold)  # as decision paths are
_EXACT_TREES: Final = _trees(str)


def match(method: str, path: str) -> Operation:
    """Name the operation that a method on a decision path (see `paths`) asks for.

    A literal segment wins over a placeholder, from left to right.
    """
    return _match(_TREES, method, path)


def match_exactly(method: str, path: str) -> Operation:
    """Name the operation that a server finds which tells `/v1/Retire` from `/v1/retire`."""
    return _match(_EXACT_TREES, method, path)


def _match(trees: dict[str, _Node], method: str, path: str) -> Operation:
    node = trees.get(method)
    if node is not None and path.count("/") <= SEGMENTS_MOST:
        for segment in path[1:].split("/"):
            # An empty segment has no name, so it fills no placeholder.
            node = node.literals.get(segment) or (node.other if segment else None)
            if node is None:
                break
        else:
            if node.operation is not None:
                return node.operation
    return UNKNOWN_READ if method in SAFE_METHODS else UNKNOWN_CHANGE


def strictest(operations: Iterable[Operation]) -> Operation:
    """Of what one request may ask for, give what matters most."""
    return max(operations, key=_strictness)


def _strictness(operation: Operation) -> tuple[bool, bool, bool]:
    is_known = operation.name != UNKNOWN_READ.name
    return operation.changes_state, operation.name in IRREVERSIBLE, is_known


_TAIL: Final = r"(?:/[\w~-][\w.~-]*+)*+/?(?:\?.*)?"
_ORGANIZATION: Final = re.compile(
    rf"/(?:v0\.5/)?organizations/([\w-]{{1,64}}){_TAIL}"
    r"|/v1/(?!(?:projects|transactions|retirements|utils)/)([\w-]{1,64})"
    rf"/(?:inventory|transactions|accounts(?:/[\w-]++)?)/?(?:\?.*)?",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)


def organization_of(target: str) -> str | None:
    """Give the organization (or entity) ID that a target names, in its one spelling.

    Takes the target, not the decision path, because IDs keep their case. A target that is not
    written plainly names nobody: a credential must not be chosen by one reading of it.
    """
    found = _ORGANIZATION.fullmatch(target)
    return None if found is None else canonical_id(found[1] or found[2])
