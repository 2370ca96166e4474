"""Bounded memo of a pure function, as a dictionary: what is known costs one look-up and no call.

For keys that a request asks for many times. `cachetools.LRUCache` takes ten times as long for a
look-up, because it counts every use; this one forgets everything when it is full, and what is in
use comes back at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

K = TypeVar("K", bound="Sized")
V = TypeVar("V")


class Memo(dict[K, V]):
    """Results of a pure function by its argument: `max_entries`, for keys up to `max_length`."""

    __slots__ = ("_function", "_max_entries", "_max_length")

    def __init__(
        self, function: Callable[[K], V], *, max_entries: int = 512, max_length: int = 256
    ) -> None:
        super().__init__()
        self._function = function
        self._max_entries = max_entries
        self._max_length = max_length

    def __missing__(self, key: K) -> V:
        value = self._function(key)
        if len(key) <= self._max_length:
            if len(self) >= self._max_entries:
                self.clear()
            self[key] = value
        return value
