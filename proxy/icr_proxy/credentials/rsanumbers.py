"""Whether the numbers of an RSA private key belong together (RFC 8017, 3.2).

OpenSSL's own check asks as well whether the factors are prime. That takes 30 ms for 2048 bits and
200 ms for 4096, at each start and, while nobody is answered, for each new key. It is left out here:
a file that was damaged does not hold two other factors of the same modulus, with all that is
computed from them. A key whose numbers do not agree must not sign: one wrong signature is enough to
find its factors (Boneh, DeMillo, Lipton 1997), and OpenSSL promises nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers


def belong_together(numbers: RSAPrivateNumbers) -> bool:
    """Whether each number is what the others make it."""
    p, q, d = numbers.p, numbers.q, numbers.d
    e, n = numbers.public_numbers.e, numbers.public_numbers.n
    if min(p, q, e) <= 1 or p & q & e & 1 == 0:
        return False
    return (
        p * q == n
        and d * e % (p - 1) == d * e % (q - 1) == 1
        and numbers.dmp1 == d % (p - 1)
        and numbers.dmq1 == d % (q - 1)
        and numbers.iqmp < p
        and numbers.iqmp * q % p == 1
    )
