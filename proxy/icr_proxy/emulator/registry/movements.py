"""Transfers and retirements: credits really move or are destroyed, and the ledger says so.

All of an order happens or none of it. Two equal orders are two orders: no idempotency key
exists (A), which is just what a proxy's tests want to see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from icr_proxy.emulator.api_errors import invalid
from icr_proxy.emulator.registry.entities import (
    ZERO,
    Account,
    CreditBatch,
    InsufficientCreditsError,
    Purpose,
    Retirement,
    Transaction,
)
from icr_proxy.emulator.registry.world import LedgerEntry, World

Kind = Literal["transfer", "retire", "transfer_retire"]

# An amount beyond this is a mistake, and `1E+99999999` would cost memory to write out.
_MAX_AMOUNT: Final = Decimal(10) ** 15
_MAX_PLACES: Final = 18  # decimals of an on-chain amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """An amount of one kind of credit."""

    batch: CreditBatch
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to happen; with a `target` credits move there first, also to be retired there."""

    kind: Kind
    source: Account
    portions: Sequence[Portion]
    target: Account | None = None
    purpose: Purpose | None = None
    comment: str | None = None
    installation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an order led to."""

    transaction: Transaction
    retirements: tuple[Retirement, ...]


def portion(world: World, *, credit_id: str, amount: Decimal) -> Portion:
    """Check a credit and an amount that came from outside."""
    batch = world.batches.get(credit_id)
    if batch is None:
        raise invalid(f"credit {credit_id[:100]} does not exist")
    if not amount.is_finite() or not ZERO < amount <= _MAX_AMOUNT:
        raise invalid(f"amount must be positive and not greater than {_MAX_AMOUNT}")
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_MAX_PLACES:
        raise invalid(f"amount must have at most {_MAX_PLACES} decimal places")
    return Portion(batch=batch, amount=amount)


def execute(world: World, order: Order) -> Done:
    """Do all of it, or raise `InsufficientCreditsError` and do nothing."""
    _check_balance(world, order)
    transaction_id = world.new_id("transaction")
    entries: list[LedgerEntry] = []
    retirements: list[Retirement] = []
    for item in order.portions:
        for step in _steps(order):
            entries.append(_move(world, order=order, item=item, step=step, tx=transaction_id))
            if step.kind == "retire":
                owner = step.source.owner
                retirements.append(_retire(world, order=order, item=item, owner=owner))
    transaction = Transaction(
        id=transaction_id,
        kind=order.kind,
        organization_id=order.source.owner,
        target=order.source.owner if order.target is None else order.target.owner,
        created_at=world.now(),
        entries=tuple(entry.id for entry in entries),
        comment=order.comment,
    )
    world.transactions[transaction.id] = transaction
    return Done(transaction=transaction, retirements=tuple(retirements))


@dataclass(frozen=True, slots=True)
class _Step:
    kind: Literal["transfer", "retire"]
    source: Account
    target: Account


def _steps(order: Order) -> list[_Step]:
    steps: list[_Step] = []
    holder = order.source
    if order.target is not None:
        steps.append(_Step("transfer", holder, order.target))
        holder = order.target
    if order.kind != "transfer":
        steps.append(_Step("retire", holder, Account(holder.owner, "retired")))
    return steps


def _check_balance(world: World, order: Order) -> None:
    # The same credit may be named twice in one order.
    wanted: dict[str, Decimal] = {}
    for item in order.portions:
        wanted[item.batch.id] = wanted.get(item.batch.id, ZERO) + item.amount
    for credit_id, amount in wanted.items():
        held = world.book.balance(order.source, credit_id=credit_id)
        if amount > held:
            raise InsufficientCreditsError(credit_id=credit_id, wanted=amount, held=held)


def _move(world: World, *, order: Order, item: Portion, step: _Step, tx: str) -> LedgerEntry:
    world.book.move(step.source, target=step.target, credit_id=item.batch.id, amount=item.amount)
    entry = LedgerEntry(
        id=world.new_id("ledger-entry"),
        transaction_id=tx,
        kind=step.kind,
        credit_id=item.batch.id,
        source=step.source.owner,
        target=step.target.owner,
        amount=item.amount,
        at=world.now(),
        installation_id=order.installation_id,
    )
    world.ledger.append(entry)
    return entry


def _retire(world: World, *, order: Order, item: Portion, owner: str) -> Retirement:
    retirement = Retirement(
        id=world.new_id("new-retirement"),
        organization_id=owner,
        batch=item.batch,
        amount=item.amount,
        created_at=world.now(),
        purpose=order.purpose or Purpose(reason="Not stated", beneficiary="Not stated"),
    )
    world.retirements[retirement.id] = retirement
    return retirement
