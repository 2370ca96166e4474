"""Limits of requests in flight and of open connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from icr_proxy.errors import DrainingError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable


class ConnectionSlot:
    """One connection that counts towards the limit, until it is released."""

    __slots__ = ("_places",)

    def __init__(self, places: ConnectionLimit) -> None:
        self._places: ConnectionLimit | None = places

    def release(self) -> None:
        """Release it; doing so twice is harmless."""
        places, self._places = self._places, None
        if places is not None:
            places.taken -= 1


class ConnectionLimit:
    """The limit of open connections, for all listeners that share it."""

    def __init__(self, limit: int, *, arrived: Callable[[str], None] = lambda _: None) -> None:
        """Have `limit` places; `arrived` hears of each new connection if it was `accepted`."""
        self._limit = limit
        self._arrived = arrived
        self.taken = 0

    @property
    def is_full(self) -> bool:
        """Whether all are taken."""
        return self.taken >= self._limit

    def acquire(self, *, beyond: bool = False) -> ConnectionSlot | None:
        """Acquire a slot if one is free, or `beyond` the limit if another is about to leave."""
        if self.is_full and not beyond:
            self._arrived("refused")
            return None
        self.taken += 1
        self._arrived("accepted")
        return ConnectionSlot(self)


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

    def acquire(self, limit: int) -> None:
        """Acquire one of `limit` places; whoever gets one releases it.

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

    def release(self) -> None:
        """Release a place."""
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def until_idle(self) -> None:
        """Wait until nothing is being served."""
        await self._idle.wait()
