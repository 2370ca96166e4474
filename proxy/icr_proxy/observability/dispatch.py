"""Outcomes on their way to their readers: handed over a hundredth of a second's worth at a time.

Each reader alone is cheap while its code and data are warm. Called in between requests they never
are, and then all of them together cost as much as a third of a request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from icr_proxy.observability.outcome import Outcome

GATHER_SECONDS = 0.01
GATHERED_MOST = 256


class OutcomeReader(Protocol):
    """What reads outcomes."""

    def read_all(self, outcomes: Iterable[Outcome]) -> None:
        """Read them in turn; whoever fails with one is called again with those after it."""


class Each:
    """A reader that is called for each of them."""

    def __init__(self, read: Callable[[Outcome], None]) -> None:
        self._read = read

    def read_all(self, outcomes: Iterable[Outcome]) -> None:
        """Read them in turn."""
        read = self._read
        for outcome in outcomes:
            read(outcome)


class OutcomeDispatcher:
    """Batches outcomes for a moment before log, metrics and tracing read them, in order."""

    def __init__(
        self,
        readers: Sequence[OutcomeReader],
        *,
        handed_on: Callable[[], None] = lambda: None,
        failed: Callable[[Exception], None],
    ) -> None:
        """Hand on to `readers`; `handed_on` hears each time that all they got is with them.

        `failed` hears what a reader met with: whoever only wanted to look is not to blame.
        """
        self.readers = readers
        self._handed_on = handed_on
        self._failed = failed
        self._waiting: list[Outcome] = []

    def __call__(self, outcome: Outcome) -> None:
        """Take one; it is with the readers within `GATHER_SECONDS`."""
        waiting = self._waiting
        waiting.append(outcome)
        if len(waiting) == 1:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.flush)
        elif len(waiting) >= GATHERED_MOST:
            self.flush()

    def flush(self) -> None:
        """Flush the batch now: somebody wants to look, or to say something after it."""
        if not self._waiting:
            return
        outcomes, self._waiting = self._waiting, []
        for reader in self.readers:
            self._hand_to(reader, outcomes)
        self._handed_on()

    def _hand_to(self, reader: OutcomeReader, outcomes: Sequence[Outcome]) -> None:
        """Let one read them all: what fails with one may do well with the next."""
        rest = iter(outcomes)
        for _ in range(len(outcomes) + 1):
            try:
                reader.read_all(rest)
            except Exception as error:  # noqa: BLE001  # whatever it is, the others get theirs
                self._failed(error)
            else:
                return
