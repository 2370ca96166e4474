"""How many requests are being served: bounded, never queued, and waited for at the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.errors import DrainingError, OverloadedError

if TYPE_CHECKING:
    from types import TracebackType


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
        self._place = Place(self)

    def slot(self, limit: int) -> Place:
        """Take one of `limit` places, which a `with` gives back at its end.

        Raises:
            OverloadedError: there is none; nothing queues.
            DrainingError: the proxy is shutting down and only finishes what it began.
        """
        if self.shut:
            raise DrainingError("this proxy is shutting down; ask another one, or again later")
        if self.count >= limit:
            raise OverloadedError("this proxy serves as many requests as it may; try again")
        self.count += 1
        self._idle.clear()
        return self._place

    def give_back(self) -> None:
        """Take back a place."""
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def until_idle(self) -> None:
        """Wait until nothing is being served."""
        await self._idle.wait()


class Place:
    """A place in use. They are all alike, so one stands for all: nothing is made for a request."""

    __slots__ = ("_in_flight",)

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight

    def __enter__(self) -> None:
        """It was taken before."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back, however the request ended."""
        self._in_flight.give_back()
