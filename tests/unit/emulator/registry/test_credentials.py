"""Tokens are found while they live, and forgotten long after."""

from icr_proxy.emulator.registry.credentials import TokenBook


def test_killing_what_is_not_there_is_harmless() -> None:
    book = TokenBook()

    book.revoke("crs_none")

    assert book.end_reason("crs_none") == "unknown"


def test_dead_tokens_are_remembered_up_to_a_number() -> None:
    book = TokenBook()
    texts = [book.issue(now=0, lifetime=1, permissions={}).token for _ in range(20_001)]

    assert book.revoke_of(None) == 20_001

    assert book.end_reason(texts[0]) == "unknown"
    assert book.end_reason(texts[1]) == "revoked"


def test_permissions_are_copied() -> None:
    permissions = {"examiner": "VIEW"}

    token = TokenBook().issue(now=0, lifetime=1, permissions=permissions)
    permissions.clear()

    assert token.permissions == {"examiner": "VIEW"}
