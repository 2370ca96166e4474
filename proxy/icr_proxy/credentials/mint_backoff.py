"""Failed and repeated mints: remembered and rationed, so that no storm follows.

One installation's refusal says nothing about others; a refused key or clock concerns all.

Re-mints that refusals cause are rationed by installation: an API that refuses everything causes no
storm. Failed mints of unknown installations are rationed over all of them: a caller can invent as
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

# Of mints that failed together, not all try again together.
BACKOFF = Backoff(first=1.0, most=30.0, jitter=0.4)
PATIENT_SECONDS = 1.0  # between two tries while a caller waits for a short failure to pass
RETRY_AFTER_MOST = 300.0  # an API that says "in a day" by mistake must not be believed


class MintFailure(msgspec.Struct, kw_only=True):
    """A failed mint, and until when asking again is pointless."""

    error: MintError
    began: float
    """When the first of a row of failures was."""
    since: float
    until: float
    count: int

    @property
    def may_pass(self) -> bool:
        """Whether it is of the kind that passes by itself."""
        return self.error.is_transient

    @property
    def next_try(self) -> float:
        """When to ask again for those who wait; earlier than for those who come anew."""
        if self.error.retry_after is not None:
            return self.until
        return min(self.until, self.since + PATIENT_SECONDS)

    def holds(self, now: float) -> bool:
        """Whether it is still to be believed; a clock that was set back makes no failure last."""
        return self.since <= now < self.until


class MintFailures:
    """Negative cache of failed mints; bounded, the least recently used leaves first."""

    def __init__(
        self, *, max_entries: int, negative_ttl: float, random: Callable[[], float]
    ) -> None:
        # Apart from the tokens, so that invented installations push none of them out.
        self._of: LRUCache[TokenKey, MintFailure] = LRUCache(max_entries)
        self._of_app: MintFailure | None = None
        self._negative_ttl = negative_ttl
        self._random = random

    def __len__(self) -> int:
        return len(self._of)

    def lookup(self, key: TokenKey, *, now: float) -> MintFailure | None:
        """Look up the failure that makes asking for this key pointless now, if there is one."""
        for failure in (self._of_app, self._of.get(key)):
            if failure is not None and failure.holds(now):
                return failure
        return None

    def remember(self, key: TokenKey, error: MintError, *, now: float) -> None:
        """Keep what went wrong.

        That our own connections were all in use, or that nobody was asked, says nothing at all.
        """
        if error.reason in ("busy", "rationed"):
            return
        about_app = isinstance(error, AppKeyRefusedError)
        last = self._of_app if about_app else self._of.get(key)
        count = next_round(last, now)
        if isinstance(error, InstallationRefusedError):
            wait, count = self._negative_ttl, 0
        elif error.reason == "circuit-open":
            # Nobody was asked. Those who have patience wait for the circuit, and no longer.
            wait, count = error.retry_after or PATIENT_SECONDS, last.count if last else 0
        else:
            wait = BACKOFF.pause(count, chance=self._random())
        wait = max(wait, min(error.retry_after or 0.0, RETRY_AFTER_MOST))
        # A row of failures is one while nobody could have succeeded for long in between.
        in_a_row = last is not None and last.since <= now < last.until + BACKOFF.most
        began = last.began if last is not None and in_a_row else now
        failure = MintFailure(error=error, began=began, since=now, until=now + wait, count=count)
        if about_app:
            self._of_app = failure
        else:
            self._of[key] = failure

    def clear(self, key: TokenKey) -> None:
        """Clear the failure: a mint has succeeded."""
        self._of.pop(key, None)
        self._of_app = None

    def clear_refusal(self, key: TokenKey) -> None:
        """Clear a refusal of this installation: something about it has changed.

        Other failures stay, so that a replayed webhook cannot be used to hammer an API in trouble.
        """
        failure = self._of.get(key)
        if failure is not None and isinstance(failure.error, InstallationRefusedError):
            del self._of[key]


def next_round(failure: MintFailure | None, now: float) -> int:
    """Count failures one after the other; mints that failed together failed once."""
    if failure is None:
        return 1
    return max(1, failure.count if failure.holds(now) else failure.count + 1)


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


class TokenBucket(msgspec.Struct, kw_only=True):
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

    def consume(self) -> None:
        """Consume one; for what was under way already, there may be less than none left."""
        self.left -= 1


class RemintLimiter:
    """Limits how often refused tokens are minted anew, by installation; bounded, LRU."""

    def __init__(self, *, max_entries: int) -> None:
        self._allowances: LRUCache[TokenKey, TokenBucket] = LRUCache(max_entries)

    def __len__(self) -> int:
        return len(self._allowances)

    def allow(self, key: TokenKey, *, now: float) -> bool:
        """Allow one more mint, if the bucket has one left."""
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
    """Limits failed mints of unknown installations."""

    def __init__(self, *, now: float) -> None:
        self._allowance = TokenBucket(
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
            self._allowance.consume()
