"""Rations of mints that are probably useless: token buckets.

Re-mints that refusals cause are rationed by installation: an API that refuses everything causes no
storm. Failed mints of unknown installations are rationed over all of them: a caller can invent as
many installations as it likes, and each costs the API a signed call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import MintRationedError
from icr_proxy.lru_cache import Recent

if TYPE_CHECKING:
    from icr_proxy.errors import MintError, MintReason
    from icr_proxy.identifiers import TokenKey

REFUSALS_BURST = 5  # re-mints that refusals may cause at once, per installation
REFUSALS_PER_SECOND = 0.2  # … and how fast that allowance grows back
# Reasons of failures that say nothing of the installation; they are bounded by other means.
NOT_ANSWERED: frozenset[MintReason] = frozenset(
    {
        "app-key-refused",
        "broken",
        "busy",
        "circuit-open",
        "loop",
        "rationed",
        "timeout",
        "tls",
        "unreachable",
    }
)
FAILURES_BURST = 50  # mints of unknown installations that may fail at once, over all of them
FAILURES_PER_SECOND = 1.0  # … and how fast that allowance grows back


class Allowance(msgspec.Struct, kw_only=True):
    """A token bucket: it holds `most`, and gains `per_second`."""

    most: float
    per_second: float
    left: float
    at: float

    def has_left(self, now: float) -> bool:
        """Let grow what has grown since, and tell whether one may be taken."""
        grown = max(0.0, now - self.at) * self.per_second
        self.left = min(self.most, self.left + grown)
        self.at = now
        return self.left >= 1

    def take(self) -> None:
        """Take one; for what was under way already, there may be less than none left."""
        self.left -= 1


class Rations:
    """The allowances of all installations; bounded, the least recently used leaves first."""

    def __init__(self, *, max_entries: int) -> None:
        self._allowances: Recent[TokenKey, Allowance] = Recent(max_entries)

    def __len__(self) -> int:
        return len(self._allowances)

    def take(self, key: TokenKey, *, now: float) -> bool:
        """Take one, if there is one left."""
        allowance = self._allowances.use(key)
        if allowance is None:
            allowance = self._allowances[key] = Allowance(
                most=REFUSALS_BURST, per_second=REFUSALS_PER_SECOND, left=REFUSALS_BURST, at=now
            )
        if not allowance.has_left(now):
            return False
        allowance.take()
        return True


class FailureRation:
    """How many mints of unknown installations may still fail."""

    def __init__(self, *, now: float) -> None:
        self._allowance = Allowance(
            most=FAILURES_BURST, per_second=FAILURES_PER_SECOND, left=FAILURES_BURST, at=now
        )
        self._is_told = False

    def is_used_up(self, now: float) -> bool:
        """Whether no more may fail for a moment."""
        return not self._allowance.has_left(now)

    def check(self, now: float) -> None:
        """Pass while mints may still fail.

        Raises:
            MintRationedError: they may not for a moment.
        """
        if self._allowance.has_left(now):
            self._is_told &= self._allowance.left < FAILURES_BURST
            return
        is_first, self._is_told = not self._is_told, True
        raise MintRationedError(
            "so many unknown installations were asked for that this one, which is unknown as well,"
            " must wait; check the installation's ID or try again",
            retry_after=max(1.0, (1 - self._allowance.left) / FAILURES_PER_SECOND),
            is_first=is_first,
        )

    def failed(self, error: MintError) -> None:
        """Count a mint that failed, if the API's answer may be about the installation."""
        if error.reason not in NOT_ANSWERED:
            self._allowance.take()
