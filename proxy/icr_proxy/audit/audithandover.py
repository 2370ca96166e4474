"""Records on their way from the event loop to the thread that writes them: many at a time.

To wake the thread costs several times what a record does, and each time it runs it takes the
interpreter from the loop. So records for which nobody waits go together for a moment; and what
requests wait for goes at the end of the loop's turn, with all that the turn brought. Records are
handed over in the order in which they came.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from icr_proxy.audit.writer_thread import Awaited

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from icr_proxy.audit.writer_thread import Entry

LINGER_SECONDS = 0.02  # how long a record for which nobody waits may wait for others
HANDED_MOST = 512


class Handover:
    """What has gathered; lives in the event loop."""

    def __init__(self, put: Callable[[Sequence[Entry]], None]) -> None:
        """Hand over by `put`, which must not block."""
        self._put = put
        self._gathered: list[Entry] = []
        self._is_due = False
        self._is_timed = False

    def add(self, entry: Entry) -> None:
        """Take one more; it goes at the end of this turn if somebody waits, else before long."""
        self._gathered.append(entry)
        if len(self._gathered) == HANDED_MOST:
            self.hand_over()
        elif type(entry) is Awaited:
            if not self._is_due:
                self._is_due = True
                asyncio.get_running_loop().call_soon(self._end_turn)
        elif not self._is_timed:
            self._is_timed = True
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end_moment)

    def hand_over(self) -> None:
        """Hand over what has gathered, now."""
        if not self._gathered:
            return
        gathered, self._gathered = self._gathered, []
        self._put(gathered)

    def _end_turn(self) -> None:
        self._is_due = False
        self.hand_over()

    def _end_moment(self) -> None:
        self._is_timed = False
        self.hand_over()
