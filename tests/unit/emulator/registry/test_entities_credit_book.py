"""No credit appears or vanishes, whatever is moved."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.emulator.registry.entities import Account, CreditBook, InsufficientCreditsError

ACCOUNTS = [Account("a", "inventory"), Account("b", "inventory"), Account("a", "retired")]

moves = st.lists(
    st.tuples(
        st.sampled_from(ACCOUNTS),
        st.sampled_from(ACCOUNTS),
        st.decimals(min_value="0.001", max_value=80, places=3),
    ),
    max_size=30,
)


@given(moves)
def test_moves_conserve_credits(orders: list[tuple[Account, Account, Decimal]]) -> None:
    book = CreditBook()
    book.issue(ACCOUNTS[0], credit_id="c", amount=Decimal("100.001"))

    for source, target, amount in orders:
        held = book.balance(source, credit_id="c")
        if amount > held:
            with pytest.raises(InsufficientCreditsError):
                book.move(source, target=target, credit_id="c", amount=amount)
        else:
            book.move(source, target=target, credit_id="c", amount=amount)

    assert book.totals() == {"c": Decimal("100.001")}
    assert all(book.balance(account, credit_id="c") >= 0 for account in ACCOUNTS)
