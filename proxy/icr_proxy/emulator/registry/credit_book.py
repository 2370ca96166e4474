"""Who holds which credits: double entry, so that no credit can appear or vanish by a mistake.

Credits come into being by `issue` alone. After that everything, retirement included, is a move
from one account to another. Amounts are `Decimal`: fractional amounts occur (V) and must add up.
"""

from collections import defaultdict
from decimal import Decimal
from typing import Final, Literal, NamedTuple

# `outside` holds what left for an e-mail in escrow or a chain address that nobody here owns.
Store = Literal["inventory", "warehouse", "reserved", "retired", "outside"]
ZERO: Final = Decimal(0)


class Account(NamedTuple):
    """One pile of credits of one owner."""

    owner: str
    store: Store


class InsufficientCreditsError(Exception):
    """The source holds less than was to be moved; nothing was moved."""

    def __init__(self, *, credit_id: str, wanted: Decimal, held: Decimal) -> None:
        super().__init__(f"{wanted} of {credit_id} wanted, {held} held")
        self.credit_id = credit_id
        self.wanted = wanted
        self.held = held


class CreditBook:
    """The balances of all accounts."""

    def __init__(self) -> None:
        self.issued: dict[str, Decimal] = defaultdict(Decimal)
        self._balances: dict[Account, dict[str, Decimal]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.issued.clear()
        self._balances.clear()

    def issue(self, account: Account, *, credit_id: str, amount: Decimal) -> None:
        """Bring credits into being."""
        self.issued[credit_id] += amount
        self._add(account, credit_id=credit_id, amount=amount)

    def balance(self, account: Account, *, credit_id: str) -> Decimal:
        """Tell what an account holds of one credit."""
        return self._balances.get(account, {}).get(credit_id, ZERO)

    def holdings(self, account: Account) -> dict[str, Decimal]:
        """List what an account holds, in the order in which it came."""
        return {key: held for key, held in self._balances.get(account, {}).items() if held}

    def move(self, source: Account, *, target: Account, credit_id: str, amount: Decimal) -> None:
        """Move credits, or raise `InsufficientCreditsError` and move nothing."""
        held = self.balance(source, credit_id=credit_id)
        if amount > held:
            raise InsufficientCreditsError(credit_id=credit_id, wanted=amount, held=held)
        self._balances[source][credit_id] = held - amount
        self._add(target, credit_id=credit_id, amount=amount)

    def totals(self) -> dict[str, Decimal]:
        """Sum each credit over all accounts; always equal to what was issued."""
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for held in self._balances.values():
            for credit_id, amount in held.items():
                sums[credit_id] += amount
        return dict(sums)

    def stored(self, store: Store) -> dict[str, Decimal]:
        """Sum each credit over one kind of account."""
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for account, held in self._balances.items():
            if account.store == store:
                for credit_id, amount in held.items():
                    sums[credit_id] += amount
        return dict(sums)

    def _add(self, account: Account, *, credit_id: str, amount: Decimal) -> None:
        pile = self._balances.setdefault(account, {})
        pile[credit_id] = pile.get(credit_id, ZERO) + amount
