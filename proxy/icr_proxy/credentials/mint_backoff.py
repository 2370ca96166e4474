"""Negative cache and rate limits of mints, so that failures cause no storm of calls.

The refusal of one installation says nothing about others; a refused key or clock concerns all.

Re-mints after a refused token are limited by installation: an API that refuses everything causes no
storm. Failed mints of unknown installations are limited over all of them: a client can invent as
many installations as it likes, and each costs the API a signed call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from cachetools import LRUCache

from icr_proxy.backoff import Backoff
from icr_proxy.errors import (
    AppKeyRefusedError,
    InstallationRefusedError,
    MintRationedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.errors import MintError, MintReason
    from icr_proxy.identifiers import TokenKey

# With jitter, so that mints that failed together do not all try again together.
BACKOFF = Backoff(first=1.0, most=30.0, jitter=0.4)
PATIENT_SECONDS = 1.0  # between two tries while a client waits for a short failure to pass
RETRY_AFTER_MOST = 300.0  # an API that says "in a day" by mistake must not be believed


class MintFailure(msgspec.Struct, kw_only=True):
    """A failed mint, and until when another call is pointless."""

    error: MintError
    began: float
    """When the first failure of the row was."""
    since: float
    until: float
    count: int

    @property
    def may_pass(self) -> bool:
        """Whether the failure is of the kind that passes by itself."""
        return self.error.is_transient

    @property
    def next_try(self) -> float:
        """When to try again for waiting requests; earlier than for new ones."""
        if self.error.retry_after is not None:
            return self.until
        return min(self.until, self.since + PATIENT_SECONDS)

    def holds(self, now: float) -> bool:
        """Whether the failure is still valid; a clock that was set back makes no failure last."""
        return self.since <= now < self.until


class MintFailures:
    """Negative cache of failed mints; bounded, the least recently used leaves first."""

    def __init__(
        self, *, max_entries: int, negative_ttl: float, random: Callable[[], float]
    ) -> None:
        # Apart from the tokens, so that invented installations evict none of them.
        self._of: LRUCache[TokenKey, MintFailure] = LRUCache(max_entries)
        self._of_app: MintFailure | None = None
        self._negative_ttl = negative_ttl
        self._random = random

    def __len__(self) -> int:
        return len(self._of)

    def lookup(self, key: TokenKey, *, now: float) -> MintFailure | None:
        """Return the failure that makes a mint for this key pointless now, if there is one."""
        for failure in (self._of_app, self._of.get(key)):
            if failure is not None and failure.holds(now):
                return failure
        return None

    def remember(self, key: TokenKey, error: MintError, *, now: float) -> None:
        """Remember a failure.

        A full connection pool or a used-up limit says nothing about the API and is not remembered.
        """
        if error.reason in ("busy", "rationed"):
            return
        about_app = isinstance(error, AppKeyRefusedError)
        last = self._of_app if about_app else self._of.get(key)
        count = next_round(last, now)
        if isinstance(error, InstallationRefusedError):
            wait, count = self._negative_ttl, 0
        elif error.reason == "circuit-open":
            # No call was made. Waiting requests wait for the circuit, and no longer.
            wait, count = error.retry_after or PATIENT_SECONDS, last.count if last else 0
        else:
            wait = BACKOFF.pause(count, chance=self._random())
        wait = max(wait, min(error.retry_after or 0.0, RETRY_AFTER_MOST))
        # Failures are one row unless a mint could have succeeded for long in between.
        in_a_row = last is not None and last.since <= now < last.until + BACKOFF.most
        began = last.began if last is not None and in_a_row else now
        failure = MintFailure(error=error, began=began, since=now, until=now + wait, count=count)
        if about_app:
            self._of_app = failure
        else:
            self._of[key] = failure

    def clear(self, key: TokenKey) -> None:
        """Clear the failure of a key after a mint succeeded."""
        self._of.pop(key, None)
        self._of_app = None

    def clear_refusal(self, key: TokenKey) -> None:
        """Clear the refusal of an installation that has changed.

        Other failures stay, so that a replayed webhook cannot be used to hammer an API in trouble.
        """
        failure = self._of.get(key)
        if failure is not None and isinstance(failure.error, InstallationRefusedError):
            del self._of[key]


def next_round(failure: MintFailure | None, now: float) -> int:
    """Count consecutive failures; mints that failed together count once."""
    if failure is None:
        return 1
    return max(1, failure.count if failure.holds(now) else failure.count + 1)


REFUSALS_BURST = 5  # re-mints that refusals may cause at once, per installation
REFUSALS_PER_SECOND = 0.2  # … and how fast that allowance grows back
# Reasons that say nothing about the installation; other means limit these failures.
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


class TokenBucket(msgspec.Struct, kw_only=True):
    """A token bucket that holds `most` and gains `per_second`."""

    most: float
    per_second: float
    left: float
    at: float

    def has_left(self, now: float) -> bool:
        """Refill the bucket, and return whether it holds one or more."""
        grown = max(0.0, now - self.at) * self.per_second
        self.left = min(self.most, self.left + grown)
        self.at = now
        return self.left >= 1

    def consume(self) -> None:
        """Take one; mints under way may make the level negative."""
        self.left -= 1


class RemintLimiter:
    """Rate limit of re-mints after refused tokens, by installation; bounded, LRU."""

    def __init__(self, *, max_entries: int) -> None:
        self._allowances: LRUCache[TokenKey, TokenBucket] = LRUCache(max_entries)

    def __len__(self) -> int:
        return len(self._allowances)

    def allow(self, key: TokenKey, *, now: float) -> bool:
        """Return whether one more mint is allowed, and count it."""
        allowance = self._allowances.get(key)
        if allowance is None:
            allowance = self._allowances[key] = TokenBucket(
                most=REFUSALS_BURST, per_second=REFUSALS_PER_SECOND, left=REFUSALS_BURST, at=now
            )
        if not allowance.has_left(now):
            return False
        allowance.consume()
        return True


class FailureLimiter:
    """Rate limit of failed mints, over all unknown installations."""

    def __init__(self, *, now: float) -> None:
        self._allowance = TokenBucket(
            most=FAILURES_BURST, per_second=FAILURES_PER_SECOND, left=FAILURES_BURST, at=now
        )
        self._is_reported = False

    def is_used_up(self, now: float) -> bool:
        """Whether the limit is used up for the moment."""
        return not self._allowance.has_left(now)

    def check(self, now: float) -> None:
        """Return if mints may still fail.

        Raises:
            MintRationedError: the limit is used up for the moment.
        """
        if self._allowance.has_left(now):
            self._is_reported &= self._allowance.left < FAILURES_BURST
            return
        is_first, self._is_reported = not self._is_reported, True
        raise MintRationedError(
            "so many unknown installations were asked for that this one, which is unknown as well,"
            " must wait; check the installation's ID or try again",
            retry_after=max(1.0, (1 - self._allowance.left) / FAILURES_PER_SECOND),
            is_first=is_first,
        )

    def failed(self, error: MintError) -> None:
        """Count a failed mint, if the answer of the API may be about the installation."""
        if error.reason not in NOT_ANSWERED:
            self._allowance.consume()
