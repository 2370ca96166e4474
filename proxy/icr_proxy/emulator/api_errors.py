"""Why the API refuses, and the body it says so with: NestJS' `statusCode`, `message`, `error` (I).

No error schema is documented. The triple fits the vendor's own client code (V), the words of a
refused token fit one observation of the live service (T), all other words are ours (A).
"""

from http import HTTPStatus
from typing import Final

# The one message known: a proxy may tell a dead token from a missing permission by it (T).
TOKEN_INVALID: Final = "Access token invalid"  # noqa: S105 - an error message, not a token
FORBIDDEN_RESOURCE: Final = "Forbidden resource"

_STATUSES: Final = frozenset(HTTPStatus)  # an ordered fault may have another


class ApiError(Exception):
    """One refused request; `reason` is set if it counts as a denied access."""

    def __init__(self, status: int, message: str | list[str], *, reason: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason


def error_body(status: int, message: str | list[str]) -> dict[str, object]:
    """Shape the body of an error."""
    phrase = HTTPStatus(status).phrase if status in _STATUSES else "Unknown"
    return {"statusCode": status, "message": message, "error": phrase}


def invalid(*messages: str) -> ApiError:
    """Refuse a request that fails validation: the message is an array then (V)."""
    return ApiError(400, list(messages))


def not_found(what: str) -> ApiError:
    """Refuse because something is not there."""
    return ApiError(404, f"{what} not found")


def forbidden(reason: str) -> ApiError:
    """Refuse a valid credential that may not do this; the words differ from a dead token's (A)."""
    return ApiError(403, FORBIDDEN_RESOURCE, reason=reason)
