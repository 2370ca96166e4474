"""One call of an endpoint and its answer as plain data: bodies, orders, pages.

An endpoint is a synchronous function from `Call` to `ApiResponse`: nothing can come between its
checks and its deeds, so two requests that race never both spend the same credit.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

import msgspec

from icr_proxy.emulator.api_errors import ApiError, forbidden, invalid
from icr_proxy.emulator.http_request import check_size
from icr_proxy.emulator.registry.credentials import IssuedToken
from icr_proxy.emulator.registry.entities import Purpose
from icr_proxy.emulator.registry.world import World
from icr_proxy.emulator.traffic import SeenRequest

Body = TypeVar("Body")

# `jwt`: the app's JWT; `any`: any access token; `installation`: one that has an organization.
Credential = Literal["none", "jwt", "any", "installation"]

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
_JSON: Final = "application/json; charset=utf-8"
_DIGITS: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What an endpoint gets to know."""

    world: World
    seen: SeenRequest
    params: dict[str, str]
    query: dict[str, list[str]]
    body: bytes
    content_type: str
    content_encoding: str = ""
    token: IssuedToken | None = None

    def own_organization(self) -> str:
        """Name the organization of the token; 403 for an app token, which has none."""
        if self.token is None or self.token.organization_id is None:
            raise forbidden("app-token")
        return self.token.organization_id

    def decode(self, shape: type[Body]) -> Body:
        """Read the JSON body, or refuse with 400."""
        # The framework's parser skips bodies that are not declared to be JSON (I), so that a
        # proxy which loses `Content-Type` is found out.
        check_size(self.seen, encoding=self.content_encoding)
        is_json = self.content_type.partition(";")[0].strip().lower() == "application/json"
        text = self.body if self.body and is_json else b"{}"
        try:
            return msgspec.json.decode(text, type=shape)
        except msgspec.ValidationError as exc:
            raise invalid(str(exc)) from exc
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ApiError(400, f"Unexpected token in JSON: {exc}") from exc

    def number(self, name: str, *, default: int) -> int:
        """Read a whole number from the query."""
        text = self.query.get(name, [str(default)])[-1]
        if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            raise invalid(f"{name} must be a non-negative integer")
        return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiResponse:
    """What goes back; `stream` is for bodies that must not be held."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    stream: Iterable[bytes] | None = None
    length: int | None = None  # of a stream; None: chunked
    delay: float = 0.0  # seconds before it goes back


Act = Callable[[Call], ApiResponse]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: where it is, what it demands, what it does.

    `permission` is a name and a level; `scope` names the path parameter that must be the
    token's own organization.
    """

    method: str
    template: str
    act: Act
    credential: Credential = "none"
    permission: tuple[str, str] | None = None
    scope: str | None = None
    # Which queue of faults a call meets; None: no faults, no latency, no record.
    faults: str | None = field(default="requests", kw_only=True)


def json_answer(payload: object, *, status: int = 200) -> ApiResponse:
    """Answer JSON."""
    return ApiResponse(
        status=status, body=_ENCODER.encode(payload), headers=(("Content-Type", _JSON),)
    )


class RetirementData(msgspec.Struct, rename="camel"):
    """What a retirement is for, as callers write it (V)."""

    reason: str
    beneficiary_name: str
    comment: str | None = None

    def purpose(self) -> Purpose:
        """Take it as a purpose."""
        return Purpose(reason=self.reason, beneficiary=self.beneficiary_name, comment=self.comment)


def require_purpose(data: RetirementData | None, *, action: str) -> Purpose | None:
    """Demand retirement data of an action that retires."""
    if action == "transfer":
        return None
    if data is None:
        raise invalid("retirementData should not be empty")
    return data.purpose()


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
