"""JSON bodies that several endpoints take, read into orders."""

import msgspec

from icr_proxy.emulator.api_errors import invalid
from icr_proxy.emulator.registry.entities import Purpose


class RetirementData(msgspec.Struct, rename="camel"):
    """What a retirement is for, as callers write it (V)."""

    reason: str
    beneficiary_name: str
    comment: str | None = None

    def purpose(self) -> Purpose:
        """Take it as a purpose."""
        return Purpose(reason=self.reason, beneficiary=self.beneficiary_name, comment=self.comment)


def needed_purpose(data: RetirementData | None, *, action: str) -> Purpose | None:
    """Demand retirement data of an action that retires."""
    if action == "transfer":
        return None
    if data is None:
        raise invalid("retirementData should not be empty")
    return data.purpose()
