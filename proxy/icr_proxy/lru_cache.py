"""The most recently used of many: what callers can name without end takes a bounded memory.

A dictionary as C has it, so that asking for a token costs a request no call of ours: `get` looks,
`move_to_end` counts as use, and `use` does both where a call does not matter.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(OrderedDict[K, V]):
    """Holds so many; the least recently used leaves first. Looking at all of them is no use."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)

    def use(self, key: K) -> V | None:
        """Give what there is for a key, which then is the last to leave."""
        value = self.get(key)
        if value is not None:
            self.move_to_end(key)
        return value
