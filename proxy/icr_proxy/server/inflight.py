"""How many requests are being served: bounded, never queued, and waited for at the end."""

from __future__ import annotations

import asyncio

from icr_proxy.errors import DrainingError, OverloadedError


class InFlight:
    """How many requests are being served, by all listeners together."""

    def __init__(self) -> None:
        self.count = 0
        self.closing = False
        """Whether connections end with the answer they are on: the proxy is draining."""
        self.shut = False
        """Whether nothing new is served any more."""
        self._idle = asyncio.Event()
        self._idle.set()

    def take(self, limit: int) -> None:
        """Take one of `limit` places; whoever gets one gives it back.

        Raises:
            OverloadedError: there is none; nothing queues.
            DrainingError: the proxy is shutting down and only finishes what it began.
        """
        if self.shut:
            raise DrainingError("this proxy is shutting down; ask another one, or again later")
        if self.count >= limit:
            raise OverloadedError("this proxy serves as many requests as it may; try again")
        if not self.count:
            self._idle.clear()
        self.count += 1

    def give_back(self) -> None:
        """Take back a place."""
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def until_idle(self) -> None:
        """Wait until nothing is being served."""
        await self._idle.wait()
