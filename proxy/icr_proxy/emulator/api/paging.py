"""Pages, counted from zero (D, V); `nextPage` and `prevPage` are null at the ends (A)."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from icr_proxy.emulator.api.calls import Call
from icr_proxy.emulator.api_errors import invalid

Item = TypeVar("Item")

DEFAULT_LIMIT: Final = 10  # the documentation's example (D); what absence means is unknown


def page(
    call: Call, *, items: Sequence[Item], name: str, shape: Callable[[Item], object]
) -> dict[str, object]:
    """Cut out the page that the query asks for and shape only that."""
    limit = call.number("limit", default=DEFAULT_LIMIT)
    current = call.number("page", default=0)
    if limit == 0:
        raise invalid("limit must not be less than 1")
    count = -(-len(items) // limit)
    pagination = {
        "total": len(items),
        "currentPage": current,
        "pageCount": count,
        "nextPage": current + 1 if current + 1 < count else None,
        "prevPage": current - 1 if current > 0 else None,
    }
    chosen = items[current * limit : (current + 1) * limit]
    return {"pagination": pagination, name: [shape(item) for item in chosen]}
