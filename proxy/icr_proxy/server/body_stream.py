"""The body of a request between the connection that receives it and the handler that reads it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.errors import ProxyError


class BodyStream:
    """The received part of a request body that the handler has not read yet.

    The connection bounds it: while too much is unread, the connection reads nothing.
    """

    __slots__ = ("_data", "_on_read", "_waiter", "failure", "is_whole")

    def __init__(self, on_read: Callable[[], None]) -> None:
        """Call `on_read` each time the handler has read what was there."""
        self._data = b""
        self._on_read = on_read
        self._waiter: asyncio.Future[None] | None = None
        self.is_whole = False
        """Whether the last byte has been received."""
        self.failure: Callable[[], ProxyError] | None = None
        """Makes the error of a body that ends before its last byte.

        An error that is kept and raised would refer to itself through its traceback.
        """

    @property
    def unread(self) -> int:
        """Number of received bytes that the handler has not read."""
        return len(self._data)

    def feed(self, piece: bytes, *, is_whole: bool) -> None:
        """Add received bytes."""
        self._data = self._data + piece if self._data else piece
        self.is_whole = is_whole
        if piece or is_whole:
            self._wake()

    def fail(self, failure: Callable[[], ProxyError]) -> None:
        """End the body; whoever reads it gets this error, unless there was one before."""
        if self.failure is None:
            self.failure = failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        """Return all unread bytes; wait while there are none; return nothing at the end.

        Raises:
            ProxyError: the body ends before its last byte.
        """
        # An error counts before the bytes in front of it: half a body would look like a whole one.
        while self.failure is None and not self._data and not self.is_whole:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.failure is not None:
            raise self.failure()
        data, self._data = self._data, b""
        self._on_read()
        return data
