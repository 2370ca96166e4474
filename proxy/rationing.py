"""Re-mints that refusals cause are rationed: an API that refuses everything causes no storm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from proxy.recent import Recent

if TYPE_CHECKING:
    from proxy.access import TokenKey

REFUSALS_BURST = 5  # re-mints that refusals may cause at once, per installation
REFUSALS_PER_SECOND = 0.2  # … and how fast that allowance grows back


class Allowance(msgspec.Struct, kw_only=True):
    """How many re-mints refusals may still cause."""

    left: float
    at: float


class Rations:
    """The allowances of all installations; bounded, the least recently used leaves first."""

    def __init__(self, *, max_entries: int) -> None:
        self._allowances: Recent[TokenKey, Allowance] = Recent(max_entries)

    def __len__(self) -> int:
        return len(self._allowances)

    def take(self, key: TokenKey, *, now: float) -> bool:
        """Take one, if there is one left."""
        allowance = self._allowances.use(key)
        if allowance is None:
            allowance = self._allowances[key] = Allowance(left=REFUSALS_BURST, at=now)
        grown = max(0.0, now - allowance.at) * REFUSALS_PER_SECOND
        allowance.left = min(REFUSALS_BURST, allowance.left + grown)
        allowance.at = now
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True
