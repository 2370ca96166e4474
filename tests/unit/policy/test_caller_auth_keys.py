import hashlib
import re

import pytest

from icr_proxy.config.fields import KEY_HASHES
from icr_proxy.config.value_types import parse_value
from icr_proxy.policy.caller_auth import (
    ALPHABET,
    CHECKSUM_LENGTH,
    checksum,
    digest_in,
    hash_of,
    new_key,
)
from icr_proxy.redaction import masked_value, quote_value


def test_a_key_has_a_prefix_much_chance_and_a_checksum() -> None:
    key = new_key()

    assert re.fullmatch(r"icrp_[0-9A-Za-z]{49}", key)
    assert checksum(key[:-CHECKSUM_LENGTH]) == key[-CHECKSUM_LENGTH:]
    assert len(ALPHABET) ** 43 > 2**256


def test_no_two_keys_are_the_same() -> None:
    assert len({new_key() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "000000", id="nothing"),
        pytest.param("123456789", "3jZRME", id="the check value of CRC-32, cbf43926"),
    ],
)
def test_the_checksum_can_be_made_by_others(text: str, expected: str) -> None:
    assert checksum(text) == expected


def test_the_hash_is_what_sha256sum_gives() -> None:
    assert hash_of("icrp_x") == f"sha256:{hashlib.sha256(b'icrp_x').hexdigest()}"
    assert digest_in(hash_of("icrp_x")) == hashlib.sha256(b"icrp_x").digest()


def test_the_hash_is_what_the_configuration_takes() -> None:
    hashed = hash_of(new_key())

    assert parse_value(KEY_HASHES, [hashed]) == ((hashed,), [])


def test_a_key_in_a_wrong_place_is_not_shown() -> None:
    key = new_key()

    assert key not in quote_value(key)
    assert key not in masked_value("X-Whatever", key)
