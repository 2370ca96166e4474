from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from icr_proxy.credentials.signing_key import belong_together


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def with_one_other(name: str, change: int = 2) -> rsa.RSAPrivateNumbers:
    """Give the numbers of a good key, of which one is not what it was."""
    good = key().private_numbers()
    names = ("p", "q", "d", "dmp1", "dmq1", "iqmp")
    private = {each: getattr(good, each) for each in names}
    public = {"e": good.public_numbers.e, "n": good.public_numbers.n}
    changed = private if name in private else public
    changed[name] += change
    return rsa.RSAPrivateNumbers(**private, public_numbers=rsa.RSAPublicNumbers(**public))


def test_those_of_a_good_key_do() -> None:
    assert belong_together(key().private_numbers())


@pytest.mark.parametrize("name", ["p", "q", "d", "dmp1", "dmq1", "iqmp", "e", "n"])
def test_one_that_is_another_is_found(name: str) -> None:
    assert not belong_together(with_one_other(name))


@pytest.mark.parametrize("name", ["p", "q"])
@pytest.mark.parametrize("factor", [0, 1, 2], ids=str)
def test_factors_that_are_none_are_found(name: str, factor: int) -> None:
    good: int = getattr(key().private_numbers(), name)

    assert not belong_together(with_one_other(name, factor - good))


def test_an_inverse_that_is_too_large_is_found() -> None:
    assert not belong_together(with_one_other("iqmp", key().private_numbers().p))
