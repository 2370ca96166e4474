"""The claims of an App JWT.

Pure: the clock comes in, the signature is made by a `keys.Signer`.
"""

from __future__ import annotations

# The documentation recommends 60 s in the past against drifting clocks (D).
BACKDATED_SECONDS = 60
# The limit is 600 s by the server's clock (D); a minute is left for a clock of ours that is fast.
LIFETIME_SECONDS = 540


def app_claims(app_id: str, *, now: float) -> dict[str, object]:
    """Give the payload of an App JWT at `now` (seconds since the epoch, server's clock).

    `alg` is listed among the required payload claims (D), and the vendor sends it (V), although
    RFC 7515 wants it in the header, where it is as well.
    """
    second = int(now)
    return {
        "iat": second - BACKDATED_SECONDS,
        "exp": second + LIFETIME_SECONDS,
        "iss": app_id,
        "alg": "RS256",
    }
